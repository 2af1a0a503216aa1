/** Personal fields: encrypted, forgotten, and why they cannot be read. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Equal, Layer, Option, Random, Result, Stream } from "effect"
import { PersonalDataError } from "../../errors.ts"
import * as KeyEncryption from "../../KeyEncryption.ts"
import type * as MessageStore from "../../MessageStore.ts"
import * as Personal from "../../Personal.ts"
import { Storage, type SubjectKeyStorage } from "../../Storage.ts"
import { failsWith, type Part } from "../fixture.ts"
import {
  canary,
  type CustomerEvent,
  Customers,
  emailsOf,
  encryption,
  messagesOf,
  newCustomer,
  onCustomers,
  Registered,
  Renamed,
  renamed,
  Returning,
  storedIn,
  Visited,
  wrappingKeys
} from "./personalFixture.ts"

/** A message with personal data in every field that may have some. */
const registered = (customerId: string, contactId: number) =>
  new Registered({
    customerId,
    email: Personal.known(canary),
    born: Personal.known(DateTime.makeUnsafe("1815-12-10T00:00:00.000Z")),
    address: { country: "UK", street: Personal.known(`${canary} street`) },
    contacts: [{ contactId, phone: Personal.known(canary) }, { contactId: contactId + 1, phone: Personal.known("") }],
    names: [Personal.known({ first: canary }), Personal.forgotten, Personal.known({ first: "Ada" })],
    notes: { a: Personal.known({ canary: [canary, null] }), b: null, c: Personal.known("~personal:1:x") },
    comment: Option.some(Personal.known(canary))
  })

/** The reason why a message cannot be read, or written. */
const reasonOf = (error: { readonly _tag: string; readonly cause?: unknown }) =>
  error._tag === "SerializationError" && error.cause instanceof PersonalDataError ? error.cause.reason : error

export const personal: Part = (it) => {
  it.effect("are read as they were written, wherever they are, and nothing of them is stored", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const customer = newCustomer()
        const messages = [registered(customer, 7), registered(customer, 7)] as const
        const { globalPosition } = yield* customers.write(customer, messages)
        const [first] = messages
        const isFirst = (message: CustomerEvent | undefined, what: string) =>
          assert.isTrue(Equal.equals(message, first), what)
        const range = { fromGlobalPosition: globalPosition - 1 }
        isFirst((yield* messagesOf(customers, customer))[0], "read")
        yield* Effect.scoped(Effect.gen(function*() {
          const reader = yield* customers.reader
          isFirst((yield* reader.getMessageById(first.messageId)).message, "by id")
          isFirst((yield* Stream.runCollect(reader.readWildcard(customer, range)))[0]?.message, "by pattern")
        }))
        isFirst((yield* Stream.runCollect(customers.readTagged({ customer })))[0]?.message, "by tag")

        const [stored, again] = yield* storedIn(customer)
        assert.notInclude(JSON.stringify([stored, again]), canary)
        assert.deepInclude(stored, { customerId: customer, _tag: "Registered" })
        const values = [stored, again].map((one) => String(one?.["email"]))
        for (const value of values) assert.match(value, /^~personal:1:[\w+/]+=*$/)
        assert.notStrictEqual(values[0], values[1])
      })))

  it.effect("are forgotten with their subject, and with no other", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const [customer, other] = [newCustomer(), newCustomer()]
        const contact = yield* Random.nextIntBetween(1, 2 ** 40)
        yield* customers.write(customer, [registered(customer, contact), renamed(other, "other")])
        const before = yield* storedIn(customer)
        yield* customers.forget(customer)
        const [message, ofOther] = yield* messagesOf(customers, customer)
        assert.instanceOf(message, Registered)
        if (!(message instanceof Registered)) return
        const { address, born, comment, contacts, email, names, notes } = message
        const forgotten = [email, born, address?.street, ...names ?? [], notes?.["a"], notes?.["c"]]
        assert.isTrue(forgotten.every((value) => value === Personal.forgotten))
        assert.strictEqual(notes?.["b"], null)
        assert.deepStrictEqual(comment, Option.some(Personal.forgotten))
        assert.deepStrictEqual(contacts?.map(({ phone }) => Personal.getOrElse(phone, () => null)), [canary, ""])
        assert.strictEqual(ofOther instanceof Renamed && Personal.getOrElse(ofOther.email, () => ""), "other")
        // Another subject of the same message.
        yield* customers.forget(String(contact))
        const [again] = yield* messagesOf(customers, customer)
        assert.deepStrictEqual(
          again instanceof Registered && again.contacts?.map(({ phone }) => Personal.getOrElse(phone, () => null)),
          [null, ""]
        )
        // Not in another process either; and nothing of the messages has changed.
        assert.deepStrictEqual(yield* onCustomers(Customers, (elsewhere) => emailsOf(elsewhere, customer)), [
          null,
          "other"
        ])
        assert.deepStrictEqual(yield* storedIn(customer), before)
        // What is forgotten can be written, and stays so.
        yield* customers.write(`${customer} copied`, new Renamed({ customerId: customer, email: Personal.forgotten }))
        assert.deepStrictEqual(yield* emailsOf(customers, `${customer} copied`), [null])
      })))

  it.effect("of somebody who is forgotten are refused, or get a new key, as the store says", () =>
    Effect.gen(function*() {
      const [customer, stranger] = [newCustomer(), newCustomer()]
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          yield* customers.write(customer, renamed(customer, "old"))
          for (const subject of [customer, stranger, customer]) yield* customers.forget(subject)
          for (const subject of [customer, stranger]) {
            const message = renamed(subject)
            const calls = {
              write: customers.write(customer, [new Visited({ customerId: subject, page: 1 }), message]),
              writeAll: customers.writeAll([{ stream: subject, messages: [renamed(newCustomer()), message] }]),
              update: customers.update(customer, { initial: 0, evolve: () => 0 }, () => Effect.succeed(message)),
              schedule: customers.schedule(customer, message, { at: yield* DateTime.now })
            }
            for (const [name, call] of Object.entries<Effect.Effect<unknown, MessageStore.WriteError>>(calls)) {
              const error = yield* Effect.flip(call)
              assert.strictEqual(reasonOf(error), "forgotten", name)
              assert.include(error.message, `the subject "${subject}" is forgotten`, name)
            }
          }
          assert.strictEqual((yield* customers.head(customer)).version, 1)
          // A transaction goes on, and others who write at the same time are not harmed.
          yield* customers.withTransaction(Effect.gen(function*() {
            yield* Effect.flip(customers.write(customer, renamed(customer)))
            yield* customers.write(customer, renamed(newCustomer(), "in it"))
          }))
          const written = yield* Effect.all(
            [customer, newCustomer(), customer, newCustomer()].map((subject) =>
              Effect.result(customers.update(customer, {
                initial: 0,
                evolve: () => 0
              }, () => Effect.succeed(renamed(subject, "together"))))
            ),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(written.map(Result.isSuccess), [false, true, false, true])
          assert.deepStrictEqual(yield* emailsOf(customers, customer), [null, "in it", "together", "together"])
        }))
      yield* onCustomers(Returning, (customers) =>
        Effect.gen(function*() {
          for (const [i, subject] of [customer, stranger, customer].entries()) {
            yield* customers.write(subject, renamed(subject, `new ${i}`))
          }
          assert.deepStrictEqual((yield* emailsOf(customers, customer)).slice(-2), ["new 0", "new 2"])
          yield* customers.forget(customer)
          yield* customers.write(customer, renamed(customer, "newer"))
          assert.deepStrictEqual((yield* emailsOf(customers, customer)).slice(-3), [null, null, "newer"])
          // Each time it says so.
          const notices = yield* messagesOf(customers, `forgotten ${customer}`)
          assert.deepStrictEqual(notices.map(({ _tag }) => _tag), ["SubjectForgotten"])
        }))
    }))

  it.effect("that cannot be decrypted say why, and are never taken for forgotten", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const customer = newCustomer()
      yield* onCustomers(
        Customers,
        (customers) => customers.write(customer, [renamed(customer), renamed(newCustomer())])
      )
      const [stored, other] = yield* storedIn(customer)
      const text = String(stored?.["email"])
      const reading = (
        change: (data: Record<string, unknown>) => void,
        keys?: Layer.Layer<KeyEncryption.KeyEncryption>,
        subjectKeys?: Partial<SubjectKeyStorage>
      ) =>
        onCustomers(Customers, (customers) =>
          Effect.gen(function*() {
            const error = yield* Effect.flip(emailsOf(customers, customer))
            // The other message is not harmed.
            const found = yield* Effect.result(Stream.runDrain(customers.read(customer, { fromVersion: 2 })))
            return { reason: reasonOf(error), isOtherRead: Result.isSuccess(found) }
          }), {
          ...keys === undefined ? {} : { keys },
          change: () => ({
            readStream: (query) =>
              Effect.map(storage.readStream(query), (page) => {
                const first = page.messages.find(({ version }) => version === 1)
                if (first !== undefined) change(first.data as Record<string, unknown>)
                return page
              }),
            subjectKeys: { ...storage.subjectKeys, ...subjectKeys }
          })
        })
      const nothing = () => {}
      const given = (ids: ReadonlyArray<string>) => Layer.orDie(KeyEncryption.layer(wrappingKeys(...ids)))
      const wrongKey = Layer.effect(
        KeyEncryption.KeyEncryption,
        Effect.gen(function*() {
          const own = yield* KeyEncryption.KeyEncryption
          return { ...own, unwrap: (wrapped, boundTo) => own.unwrap({ ...wrapped, keyId: "k2" }, boundTo) }
        })
      ).pipe(Layer.provide(given(["k2"])))
      const unavailable = new PersonalDataError({ reason: "unavailable" })
      const answers = {
        missing: yield* reading(nothing, given(["k2"])),
        wrong: yield* reading(nothing, wrongKey),
        unavailable: yield* reading(nothing, encryption, { get: () => Effect.fail(unavailable) }),
        lost: yield* reading(nothing, encryption, {
          get: (ids) => Effect.map(storage.subjectKeys.get(ids), Arr.filter(({ subject }) => subject !== customer))
        }),
        older: yield* reading(nothing, encryption, {
          get: (ids) =>
            Effect.map(
              storage.subjectKeys.get(ids),
              Arr.map((key) => key.subject === customer ? { ...key, generation: 0, wrapped: undefined } : key)
            )
        }),
        ofAnotherMessage: yield* reading((data) => data["email"] = other?.["email"]),
        changed: yield* reading((data) =>
          data["email"] = text.replace(/.{4}$/, (end) => end.toUpperCase() === end ? "AAAA" : end.toUpperCase())
        ),
        cut: yield* reading((data) => data["email"] = text.slice(0, 40)),
        ofALaterForm: yield* reading((data) => data["email"] = text.replace(":1:", ":2:")),
        noBase64: yield* reading((data) => data["email"] = "~personal:1:?")
      }
      const tampered = { reason: "tampered", isOtherRead: true }
      assert.deepStrictEqual<unknown>(answers, {
        missing: { reason: "wrappingKey", isOtherRead: false },
        wrong: { reason: "wrappingKey", isOtherRead: false },
        unavailable: { reason: "unavailable", isOtherRead: false },
        lost: { reason: "lost", isOtherRead: true },
        older: { reason: "lost", isOtherRead: true },
        ofAnotherMessage: tampered,
        changed: tampered,
        cut: tampered,
        ofALaterForm: tampered,
        noBase64: tampered
      })
    }))

  it.effect("that were stored as they are, are read as known, and encrypted when they are redacted", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const customer = newCustomer()
        const { messageId, occurredAt } = renamed(customer)
        const data = JSON.stringify({
          _tag: "EmailChanged",
          messageId,
          occurredAt,
          customerId: customer,
          email: "plain"
        })
        const item = {
          stream: customer,
          expectedVersion: undefined,
          metadata: "{}",
          messages: [{ messageId, occurredAt: DateTime.toUtc(occurredAt), data }]
        }
        yield* storage.append([item], { atomic: true })
        assert.deepStrictEqual(yield* emailsOf(customers, customer), ["plain"])
        const redact = customers.redact(messageId, (message) => message)
        assert.deepStrictEqual([yield* redact, yield* redact], [1, 0])
        const [stored] = yield* storedIn(customer)
        assert.match(String(stored?.["email"]), /^~personal:1:/)
        assert.deepStrictEqual(yield* emailsOf(customers, customer), ["plain"])
        yield* customers.redact(messageId, (message) =>
          new Renamed({
            messageId,
            occurredAt: DateTime.toUtc(message.occurredAt),
            customerId: customer,
            email: Personal.known("redacted")
          }))
        assert.deepStrictEqual(yield* emailsOf(customers, customer), ["redacted"])
      })))

  it.effect("need a subject, and a place that the schema declares", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const stream = newCustomer()
        assert.strictEqual(reasonOf(yield* Effect.flip(customers.write(stream, renamed("")))), "noSubject")
        // A personal value in a field that is none is not written out.
        const error = yield* Effect.flip(
          customers.write(stream, new Visited({ customerId: "c", page: { "~personal": "known", value: canary } }))
        )
        assert.deepInclude({ ...error }, { _tag: "SerializationError", operation: "serialize" })
        yield* failsWith(customers.forget(""), { _tag: "InvalidArgumentError", argument: "subject" })
        assert.strictEqual((yield* customers.head(stream)).version, 0)
      })))

  it.effect("are forgotten in transactions, unless they are rolled back", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const customer = newCustomer()
        const emails = emailsOf(customers, customer)
        yield* customers.write(customer, renamed(customer, "1"))
        yield* emails
        const inside = (text: string) =>
          customers.withTransaction(Effect.gen(function*() {
            yield* customers.write(customer, renamed(customer, text))
            const before = yield* emails
            yield* customers.forget(customer)
            assert.strictEqual(reasonOf(yield* Effect.flip(customers.write(customer, renamed(customer)))), "forgotten")
            return [before, yield* emails] as const
          }))
        const back = inside("2").pipe(
          Effect.flatMap((answer) => Effect.fail(answer)),
          customers.withTransaction,
          Effect.flip
        )
        assert.deepStrictEqual(yield* back, [["1", "2"], [null, null]])
        assert.deepStrictEqual(yield* emails, ["1"])
        // A key that was rolled back encrypts nothing.
        const other = newCustomer()
        yield* customers.withTransaction(
          Effect.andThen(customers.write(other, renamed(other)), Effect.fail("back"))
        ).pipe(Effect.ignore)
        yield* customers.write(other, renamed(other, "3"))
        assert.deepStrictEqual(yield* onCustomers(Customers, (elsewhere) => emailsOf(elsewhere, other)), ["3"])
        assert.deepStrictEqual(yield* inside("2"), [["1", "2"], [null, null]])
        assert.deepStrictEqual(yield* emails, [null, null])
      })))
}
