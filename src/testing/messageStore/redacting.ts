/** Messages whose content is replaced at their places. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Layer, Schema, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import * as Personal from "../../Personal.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, Deposited, deposits, failsWith, newStream, Noted, outsider, type Part } from "../fixture.ts"
import { canary, Customers, emailsOf, newCustomer, onCustomers, Renamed, renamed, storedIn } from "./personalFixture.ts"

class Joined extends Schema.TaggedClass<Joined>()("Joined", {
  ...Message.fields,
  name: Schema.String,
  club: Message.tag("club", Schema.Array(Schema.String))
}) {}

class Clubs extends MessageStore.Service<Clubs>()("effect-message-store/testing/Clubs", {
  name: "contract",
  schema: Joined
}) {}

const listed = Fold.make<Joined>()({
  initial: [] as ReadonlyArray<string>,
  Joined: (sofar, { name }) => [...sofar, name]
})

const onClubs = <A, E, R>(use: (clubs: Clubs["Service"]) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const layer = Layer.fresh(Layer.provide(Clubs.layerStorage, Layer.succeed(Storage, yield* Storage)))
    return yield* use(yield* Effect.provide(Clubs, yield* Effect.orDie(Layer.build(layer))))
  }))

const doubled = (message: Deposited | Noted) =>
  message._tag === "Deposited" ? new Deposited({ ...message, amount: message.amount * 2n }) : message

export const redacting: Part = (it, { concurrentTransactions }) => {
  it.effect("replaces content in place: all else stays, and the metadata say when", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const [first, second, third] = [deposit(1), deposit(2), deposit(3)]
      yield* accounts.write(stream, [first, second], { metadata: { correlationId: "c", source: "s" } })
      yield* accounts.write(other, third)
      const read = (name: string) => Stream.runCollect(accounts.read(name))
      const before = yield* read(stream)
      const seen: Array<unknown> = []
      const changed = yield* accounts.redact([second.messageId.toUpperCase(), third.messageId], (message, stored) => {
        seen.push([stored.stream, stored.version])
        return doubled(message)
      })
      assert.strictEqual(changed, 2)
      assert.sameDeepMembers(seen, [[stream, 2], [other, 1]])
      const [one, two] = yield* read(stream)
      assert.deepStrictEqual(one, before[0])
      const { message, metadata, ...place } = two ?? assert.fail("two were written")
      const { message: _, metadata: written, ...placeBefore } = before[1] ?? assert.fail("two were written")
      assert.deepStrictEqual(place, placeBefore)
      assert.deepStrictEqual(message, new Deposited({ ...second, amount: 4n }))
      const { redactedAt, ...kept } = metadata
      assert.deepStrictEqual(kept, written)
      assert.isTrue(DateTime.isDateTime(DateTime.makeUnsafe(String(redactedAt))))
      assert.deepInclude((yield* read(other))[0]?.message, { amount: 6n })
      assert.deepInclude(yield* accounts.head(stream), { version: 2, globalPosition: two?.globalPosition })
      assert.strictEqual((yield* accounts.write(stream, deposit(), { expectedVersion: 2 })).version, 3)
      yield* Effect.scoped(Effect.gen(function*() {
        const reader = yield* accounts.reader
        assert.deepStrictEqual((yield* reader.getMessageById(second.messageId)).message, message)
        const found = yield* Stream.runCollect(reader.readWildcard(stream))
        assert.deepStrictEqual(found[1]?.message, message)
      }))
    }))

  it.effect("leaves alone what comes out as it was, so that a call can be repeated", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const [first, second] = [deposit(1), deposit(2)]
      yield* accounts.write(stream, [first, second])
      const redact = accounts.redact(
        [first.messageId, second.messageId, first.messageId],
        (message) => message._tag === "Deposited" ? new Deposited({ ...message, amount: 2n }) : message
      )
      assert.strictEqual(yield* redact, 1)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ metadata }) => "redactedAt" in metadata), [true, false])
      assert.strictEqual(yield* redact, 0)
      assert.deepStrictEqual(yield* Stream.runCollect(accounts.read(stream)), stored)
      assert.strictEqual(yield* accounts.redact([], doubled), 0)
      // Metadata as well, if they should.
      const without = accounts.redact(first.messageId, (message) => message, { metadata: () => ({ kept: 1 }) })
      assert.strictEqual(yield* without, 1)
      assert.strictEqual(yield* without, 0)
      const [{ metadata: { redactedAt, ...rest } } = assert.fail("it was written")] = yield* Stream.runCollect(
        accounts.read(stream)
      )
      assert.isString(redactedAt)
      assert.deepStrictEqual(rest, { kept: 1 })
    }))

  it.effect("may change the type of a message, and not its id, nor its time", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const first = deposit()
      yield* accounts.write(stream, first)
      const { messageId, occurredAt } = first
      const refused = { _tag: "InvalidArgumentError", argument: "change" }
      yield* failsWith(accounts.redact(messageId, () => deposit()), refused)
      const earlier = new Deposited({ messageId, amount: 1n, occurredAt: DateTime.makeUnsafe(0) })
      yield* failsWith(accounts.redact(messageId, () => earlier), refused)
      assert.strictEqual(yield* accounts.redact(messageId, () => new Noted({ messageId, occurredAt, text: "gone" })), 1)
      const [stored] = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored?.message, new Noted({ messageId, occurredAt, text: "gone" }))
    }))

  it.effect("changes all messages or none", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(3)
      const ids = messages.map(({ messageId }) => messageId)
      yield* accounts.write(stream, messages)
      const unknown = deposit().messageId
      yield* failsWith(accounts.redact([...ids, unknown], doubled), {
        _tag: "MessageNotFoundError",
        messageId: unknown
      })
      yield* failsWith(accounts.redact([...ids, "no id"], doubled), {
        _tag: "InvalidArgumentError",
        argument: "messageId"
      })
      const third = (message: Deposited | Noted) =>
        message.messageId === ids[2]
          ? new Noted({ messageId: message.messageId, occurredAt: message.occurredAt, text: "a\0b" })
          : doubled(message)
      yield* failsWith(accounts.redact(ids, third), { _tag: "SerializationError", operation: "serialize" })
      yield* Effect.flip(accounts.withTransaction(
        Effect.andThen(accounts.redact(ids, doubled), Effect.fail("rolled back"))
      ))
      const amounts = Effect.map(
        Stream.runCollect(accounts.read(stream)),
        (stored) => stored.map(({ message, metadata }) => [(message as Deposited).amount, "redactedAt" in metadata])
      )
      assert.deepStrictEqual(yield* amounts, [[1n, false], [2n, false], [3n, false]])
      // A transaction sees what it has done, and stays usable where it was refused.
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* failsWith(accounts.redact(unknown, doubled), { _tag: "MessageNotFoundError" })
        assert.strictEqual(yield* accounts.redact(ids.slice(0, 2), doubled), 2)
        const added = deposit(10)
        yield* accounts.write(stream, added)
        assert.strictEqual(yield* accounts.redact([ids[0] ?? "", added.messageId], doubled), 2)
        assert.deepStrictEqual(yield* amounts, [[4n, true], [4n, true], [3n, false], [20n, true]])
        yield* accounts.delete(stream, { toVersion: 1 })
        yield* failsWith(accounts.redact(ids, doubled), { _tag: "MessageNotFoundError", messageId: ids[0] })
      }))
      assert.deepStrictEqual(yield* amounts, [[4n, true], [3n, false], [20n, true]])
    }))

  it.effect("may take tags from a message, and gives it none", () =>
    onClubs((clubs) =>
      Effect.gen(function*() {
        const [stream, a, b] = [newStream(), newStream(), newStream()]
        const first = new Joined({ name: "Ada", club: [a, b] })
        yield* clubs.write(stream, [first, new Joined({ name: "Bob", club: [a] })])
        const found = (club: string) =>
          Effect.map(
            Stream.runCollect(clubs.readTagged({ club }, { tags: true })),
            (stored) => stored.map(({ message, tags }) => [message.name, tags.length])
          )
        const { messageId } = first
        const redact = (name: string, club: ReadonlyArray<string>) =>
          clubs.redact(messageId, (joined) => new Joined({ ...joined, name, club }))
        yield* failsWith(redact("?", [a, newStream()]), { _tag: "InvalidArgumentError", argument: "change" })
        assert.deepStrictEqual(yield* found(a), [["Ada", 2], ["Bob", 1]])
        assert.strictEqual(yield* redact("?", [b, a]), 1)
        assert.deepStrictEqual([yield* found(a), yield* found(b)], [[["?", 2], ["Bob", 1]], [["?", 2]]])
        assert.strictEqual(yield* redact("?", [a]), 1)
        assert.deepStrictEqual([yield* found(a), yield* found(b)], [[["?", 1], ["Bob", 1]], []])
        // What it has lost it does not get back.
        yield* failsWith(redact("?", [a, b]), { _tag: "InvalidArgumentError" })
        assert.strictEqual(yield* redact("?", []), 1)
        assert.deepStrictEqual(yield* found(a), [["Bob", 1]])
        yield* clubs.delete(stream)
        assert.deepStrictEqual(yield* found(a), [])
      })
    ))

  it.effect("is seen by who has decided on what was there: the decision is made again", () =>
    onClubs((clubs) =>
      Effect.gen(function*() {
        const [stream, other, club] = [newStream(), newStream(), newStream()]
        const [first, second] = [new Joined({ name: "Ada", club: [club] }), new Joined({ name: "Bob", club: [club] })]
        const redact = (change: Partial<Joined>) =>
          clubs.redact(first.messageId, (joined) => new Joined({ ...joined, ...change }))
        /** And who is left in the stream, and of the tag. */
        const changes: ReadonlyArray<
          readonly [Effect.Effect<unknown, unknown>, ReadonlyArray<string>, ReadonlyArray<string>]
        > = [
          [redact({ name: "?" }), ["?", "Bob"], ["?", "Bob"]],
          [redact({ club: [] }), ["Ada", "Bob"], ["Bob"]],
          [clubs.delete(stream, { toVersion: 1 }), ["Bob"], ["Bob"]],
          [clubs.delete(stream), [], []]
        ]
        for (const [change, inStream, ofTag] of changes) {
          for (const source of [Decision.stream(stream, listed), Decision.tagged({ club }, listed)]) {
            yield* clubs.delete(stream)
            yield* clubs.write(stream, [first, second])
            const seen: Array<ReadonlyArray<string>> = []
            yield* clubs.decide({ names: source }, ({ names }) => {
              const isFirst = seen.push(names) === 1
              return Effect.as(isFirst ? Effect.orDie(change) : Effect.void, {
                stream: other,
                messages: new Joined({ name: "Eve", club: [] })
              })
            })
            assert.deepStrictEqual(seen, [["Ada", "Bob"], source._tag === "Stream" ? inStream : ofTag])
          }
        }
      })
    ))

  it.effect("encrypts the personal fields of what takes the place of a message", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const [stream, one, two] = [newCustomer(), newCustomer(), newCustomer()]
        const messages = [renamed(one, "first"), renamed(two, "second")] as const
        yield* customers.write(stream, messages)
        const redact = (email: string) =>
          customers.redact(messages.map(({ messageId }) => messageId), (message) =>
            message._tag === "EmailChanged" && message.email._tag === "Known"
              ? new Renamed({ ...message, email: Personal.known(`${email} ${message.email.value}`) })
              : message)
        assert.strictEqual(yield* redact(canary), 2)
        assert.deepStrictEqual(yield* emailsOf(customers, stream), [`${canary} first`, `${canary} second`])
        assert.notInclude(JSON.stringify(yield* storedIn(stream)), canary)
        yield* customers.forget(one)
        assert.strictEqual(yield* redact("again"), 1)
        assert.deepStrictEqual(yield* emailsOf(customers, stream), [null, `again ${canary} second`])
        // Nothing is to be encrypted for somebody who is forgotten.
        const back = customers.redact(messages[0].messageId, (message) =>
          message._tag === "EmailChanged" ? new Renamed({ ...message, email: Personal.known("back") }) : message)
        yield* failsWith(back, { _tag: "SerializationError", operation: "serialize" })
        assert.strictEqual(yield* redact("once more"), 1)
        assert.deepStrictEqual(yield* emailsOf(customers, stream), [null, `once more again ${canary} second`])
      })))

  if (concurrentTransactions) {
    it.effect("shows what was there to a reader that was opened before", () =>
      Effect.scoped(Effect.gen(function*() {
        const accounts = yield* Accounts
        const stream = newStream()
        const messages = deposits(2)
        yield* accounts.write(stream, messages)
        const reader = yield* accounts.reader
        yield* accounts.redact(messages.map(({ messageId }) => messageId), doubled)
        const seen = yield* Stream.runCollect(reader.read(stream))
        assert.deepStrictEqual(seen.map(({ message }) => message), messages)
        assert.deepStrictEqual((yield* reader.getMessageById(messages[0].messageId)).message, messages[0])
        assert.deepStrictEqual((yield* Stream.runCollect(reader.readWildcard(stream)))[1]?.message, messages[1])
        const now = yield* Stream.runCollect(accounts.read(stream))
        assert.deepStrictEqual(now.map(({ message }) => message), messages.map(doubled))
      })))

    it.effect("is done one after the other: each changes what the one before has left", () =>
      Effect.scoped(Effect.gen(function*() {
        const accounts = yield* Accounts
        const outside = yield* outsider
        const stream = newStream()
        const [first] = deposits(1)
        yield* accounts.write(stream, first)
        const redact = accounts.redact(first.messageId, doubled)
        const waiting = yield* accounts.withTransaction(Effect.gen(function*() {
          yield* redact
          const fibers = yield* outside(Effect.forEach([redact, redact], (one) => Effect.forkDetach(one)))
          // Nobody waits to read, or to write elsewhere.
          yield* outside(accounts.write(newStream(), deposit()))
          const [stored] = yield* outside(Stream.runCollect(accounts.read(stream)))
          assert.deepStrictEqual(stored?.message, first)
          assert.deepStrictEqual(fibers.map((fiber) => fiber.pollUnsafe()), [undefined, undefined])
          return fibers
        }))
        assert.deepStrictEqual(yield* Effect.forEach(waiting, (fiber) => Fiber.join(fiber)), [1, 1])
        const [stored] = yield* Stream.runCollect(accounts.read(stream))
        assert.deepInclude(stored?.message, { amount: 8n })

        // A message that is deleted meanwhile.
        const [isDeleted, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const deletion = yield* Effect.forkChild(accounts.withTransaction(Effect.gen(function*() {
          yield* accounts.delete(stream)
          yield* Deferred.succeed(isDeleted, undefined)
          yield* Deferred.await(release)
        })))
        yield* Deferred.await(isDeleted)
        const late = yield* Effect.forkChild(Effect.flip(redact))
        yield* outside(accounts.write(newStream(), deposit()))
        assert.isUndefined(late.pollUnsafe())
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(deletion)
        assert.deepInclude<object>(yield* Fiber.join(late), {
          _tag: "MessageNotFoundError",
          messageId: first.messageId
        })
      })))
  }

  it.effect("refuses messages of too many streams", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const messages = deposits(501)
      yield* accounts.writeAll(messages.slice(1).map((one, i) => ({ stream: `${prefix}-${i}`, messages: one })))
      yield* accounts.write(`${prefix}-500`, messages[0])
      const ids = messages.map(({ messageId }) => messageId)
      yield* failsWith(accounts.redact(ids, doubled), { _tag: "InvalidArgumentError", argument: "messageIds" })
      assert.strictEqual(yield* accounts.redact(Arr.drop(ids, 1), doubled), 500)
    }))
}
