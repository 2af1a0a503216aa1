/** Decisions made together have the outcomes that they would have had one by one. */
import { assert } from "@effect/vitest"
import { Arbitrary, Effect, Exit, Fiber, Latch, Layer, Schema, type Scope, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import type { DuplicateMessageError } from "../../errors.ts"
import * as Fold from "../../Fold.ts"
import type * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, balance, deposit, type Deposited, newStream, type Noted, type Part } from "../fixture.ts"

const sum = Fold.make<Deposited | Noted>()({ initial: 0, Deposited: (sofar, { amount }) => sofar + Number(amount) })
const count = Fold.make<Deposited | Noted>()({ initial: 0, Deposited: (sofar) => sofar + 1 })

/** A decision as numbers. What it is made on shows in what it writes, and in how it fails. */
const Command = Schema.Struct({
  stream: Schema.Literals([0, 0, 0, 1, 2]),
  /** Another stream that is read; written to as well, if it is another one. */
  second: Schema.Literals(["none", "none", "none", 0, 1, 2]),
  fold: Schema.Literals(["sum", "sum", "count", "update"]),
  does: Schema.Literals(["add", "add", "add", "take", "take", "nothing", "fail", "die", "repeat", "repeat"]),
  /** Of the ids of its stream, which all that repeat share. */
  id: Schema.Literals([0, 1, 2]),
  interrupted: Schema.Literals([false, false, false, false, true]),
  yields: Schema.Literals([0, 0, 0, 1, 3])
})
type Command = typeof Command.Type
const Commands = Arbitrary.array(Arbitrary.schema(Command), { minLength: 1, maxLength: 24 })

class Failed extends Schema.TaggedError<Failed>()("Failed", { on: Schema.Number }) {}

/** A store of its own on the storage, whose appends wait at a gate. */
const gated: Effect.Effect<readonly [Accounts["Service"], Latch.Latch], unknown, Storage | Scope.Scope> = Effect.gen(
  function*() {
    const storage = yield* Storage
    const gate = yield* Latch.make()
    const wrapped = Storage.of({
      ...storage,
      append: (items, options) => Effect.andThen(gate.await, storage.append(items, options))
    })
    const context = yield* Layer.build(
      Layer.fresh(Layer.provide(Accounts.layerStorage, Layer.succeed(Storage, wrapped)))
    )
    return [yield* Effect.provide(Accounts, context), gate] as const
  }
)

/** Streams, and the messages that are written to them. */
interface World {
  readonly streams: ReadonlyArray<string>
  readonly repeated: ReadonlyArray<ReadonlyArray<Deposited>>
  /** Tells the amounts that an interrupted command has written apart. */
  readonly metadata: (i: number) => { readonly correlationId: string }
}

const makeWorld = (): World => ({
  streams: [newStream(), newStream(), newStream()],
  repeated: [0, 1, 2].map(() => [deposit(1), deposit(2), deposit(3)]),
  metadata: (i) => ({ correlationId: `${i}` })
})

const run = (
  accounts: Accounts["Service"],
  { metadata, repeated, streams }: World,
  command: Command,
  i: number
): Effect.Effect<string, string> => {
  const stream = streams[command.stream] ?? ""
  const second = command.second === "none" ? stream : streams[command.second] ?? ""
  const messages = (on: number): Effect.Effect<ReadonlyArray<Deposited>, Failed> => {
    switch (command.does) {
      case "add":
        return Effect.succeed([deposit(on + 1)])
      case "take":
        return on < 3 ? Effect.fail(new Failed({ on })) : Effect.succeed([deposit(-1), deposit(-1)])
      case "nothing":
        return Effect.succeed([])
      case "fail":
        return Effect.fail(new Failed({ on }))
      case "die":
        return Effect.die(`died on ${on}`)
      case "repeat":
        return Effect.succeed([repeated[command.stream]?.[command.id] ?? deposit(1)])
    }
  }
  const slowly = (on: number) => Effect.andThen(Effect.repeat(Effect.yieldNow, { times: command.yields }), messages(on))
  const outcome: Effect.Effect<string, Failed | MessageStore.WriteError | MessageStore.DecideError> =
    command.fold === "update"
      ? Effect.map(
        accounts.update(stream, balance, (on) => slowly(Number(on)), { metadata: metadata(i) }),
        ({ appended, version }) => `${appended} at ${version}`
      )
      : Effect.map(
        accounts.decide(
          {
            one: Decision.stream(stream, command.fold === "sum" ? sum : count),
            two: Decision.stream(second, sum)
          },
          ({ one, two }) =>
            Effect.map(slowly(one + two), (own) => [
              { stream, messages: own, metadata: metadata(i) },
              {
                stream: second,
                messages: second === stream || own.length === 0 ? [] : deposit(two),
                metadata: metadata(i)
              }
            ])
        ),
        (positions) => positions.map(({ version }) => version).join()
      )
  return Effect.mapError(
    outcome,
    (error) =>
      error._tag === "Failed" ? `failed on ${error.on}` : `${error._tag} ${(error as DuplicateMessageError).messageId}`
  )
}

const show = (exit: Exit.Exit<string, string>, { repeated }: World): string => {
  const text = Exit.isSuccess(exit) ? exit.value : String(exit)
  const ids = repeated.flat().map(({ messageId }) => messageId)
  return ids.reduce((shown, id, i) => shown.replaceAll(id, `message ${i}`), text)
}

const contents = Effect.fnUntraced(function*(accounts: Accounts["Service"], { streams }: World) {
  return yield* Effect.forEach(
    streams,
    (stream) =>
      Effect.map(
        Stream.runCollect(accounts.read(stream)),
        (all) =>
          all.map(({ message, metadata, version }) =>
            `${version}: ${message._tag === "Deposited" ? message.amount : ""} of ${metadata.correlationId}`
          )
      )
  )
})

export const oneByOne: Part = (it) => {
  it.effect.prop(
    "have the outcomes of the same decisions one by one",
    [Commands],
    Effect.fnUntraced(function*([commands]) {
      const accounts = yield* Accounts
      const [together, gate] = yield* gated
      const world = makeWorld()
      // All are under way, and most of them decided, before the first append goes through.
      const fibers = yield* Effect.forEach(
        commands,
        (command, i) => Effect.forkChild(run(together, world, command, i), { startImmediately: true })
      )
      yield* Effect.repeat(Effect.yieldNow, { times: 30 })
      yield* Effect.forEach(
        fibers,
        (fiber, i) => commands[i]?.interrupted === true ? Fiber.interrupt(fiber) : Effect.void
      )
      yield* gate.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      const found = yield* contents(together, world)
      const alone = makeWorld()
      for (const [i, command] of commands.entries()) {
        const exit = exits[i]
        if (exit === undefined) continue
        const wasInterrupted = Exit.hasInterrupts(exit)
        // Nothing of it is there, or all: an append that is under way goes through.
        if (wasInterrupted && !found.flat().some((line) => line.endsWith(` of ${i}`))) continue
        const expected = yield* Effect.exit(run(accounts, alone, command, i))
        if (!wasInterrupted) assert.strictEqual(show(exit, world), show(expected, alone), `decision ${i}`)
      }
      assert.deepStrictEqual(found, yield* contents(accounts, alone))
    }, Effect.scoped)
  )
}
