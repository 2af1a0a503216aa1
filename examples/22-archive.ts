/**
 * The books of a year: archived, checked, deleted from the store, and read elsewhere.
 *
 *   node --conditions=@effect-message-store/source examples/22-archive.ts
 */
import { NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Layer, Schema, Stream } from "effect"
import { Archive, Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields, cents: Schema.Int }) {}
class YearClosed extends Schema.TaggedClass<YearClosed>()("YearClosed", { ...Message.fields, cents: Schema.Int }) {}

class Payments extends MessageStore.Service<Payments>()("examples/ArchivedPayments", {
  name: "example_archived",
  schema: Schema.Union([Paid, YearClosed])
}) {}

/** Years before this one, with a store of their own. */
class Past extends MessageStore.Service<Past>()("examples/Past", {
  name: "example_past",
  schema: Schema.Union([Paid, YearClosed])
}) {}

const program = Effect.gen(function*() {
  const payments = yield* Payments
  const past = yield* Past
  yield* truncate(payments)
  yield* truncate(past)
  const file = `${yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()}/2025.ndjson.gz`

  for (let cents = 1; cents <= 300; cents++) yield* payments.write(`account-${cents % 3}`, new Paid({ cents }))

  // Everything up to now goes into a file, compressed since its name ends so.
  yield* Archive.of(payments).export({ pattern: "account-%" }).pipe(Archive.toFile(file))
  const manifest = yield* Archive.verify(Archive.fromFile(file))
  yield* Console.log(`archived: ${manifest.messages} messages of ${manifest.streams} streams`)

  // Life goes on: what is written now is not in the archive, and stays.
  for (const account of [0, 1, 2]) yield* payments.write(`account-${account}`, new YearClosed({ cents: 0 }))
  yield* Archive.of(payments).delete(Archive.fromFile(file)).pipe(
    Stream.runForEach(({ deleted, total }) => Console.log(`deleted: ${deleted} of ${total}`))
  )
  const left = yield* Stream.runCollect(payments.read("account-1"))
  yield* Console.log(`account-1 has ${left.map(({ message, version }) => `${message._tag} at version ${version}`)}`)

  // Elsewhere they are as they were. To import again would change nothing, nor would an import that was interrupted.
  yield* Archive.of(past).import(Archive.fromFile(file)).pipe(
    Stream.runForEach(({ messages, total }) => Console.log(`imported: ${messages} of ${total}`))
  )
  yield* Console.log(`account-1 had ${(yield* past.head("account-1")).version} payments`)
})

await program.pipe(
  Effect.scoped,
  Effect.provide([Layer.mergeAll(Payments.layer, Past.layer).pipe(Layer.provide(layerDatabase())), NodeServices.layer]),
  Effect.runPromise
)
