/**
 * What is kept no longer than it may be: a year's bookings are closed and deleted, and a customer's name is redacted, with the row of
 * a read model.
 *
 *   node examples/21-forgetting.ts
 */
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Fold, Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { layerDatabase } from "./database.ts"

class Opened extends Schema.TaggedClass<Opened>()("Opened", { ...Message.fields, owner: Schema.String }) {}
class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, amount: Schema.Int }) {}
class YearClosed extends Schema.TaggedClass<YearClosed>()("YearClosed", {
  ...Message.fields,
  owner: Schema.String,
  balance: Schema.Int
}) {}

const AccountEvent = Schema.Union([Opened, Booked, YearClosed])
type AccountEvent = typeof AccountEvent.Type
class Accounts extends MessageStore.Service<Accounts>()("examples/Accounts", {
  name: "example_accounts",
  schema: AccountEvent
}) {}

// What a closed year comes to is what its messages came to.
const account = Fold.make<AccountEvent>()({
  initial: { owner: "", balance: 0 },
  Opened: (_, { owner }) => ({ owner, balance: 0 }),
  Booked: (now, { amount }) => ({ ...now, balance: now.balance + amount }),
  YearClosed: (_, { balance, owner }) => ({ owner, balance })
})

const closeYear = Effect.fn(function*(stream: string) {
  const accounts = yield* Accounts
  const { version } = yield* accounts.update(stream, account, (now) => new YearClosed(now))
  return yield* accounts.delete(stream, { toVersion: version - 1 })
})

const forgetOwner = Effect.fn(function*(stream: string) {
  const accounts = yield* Accounts
  const sql = yield* SqlClient.SqlClient
  yield* accounts.withTransaction(Effect.gen(function*() {
    const stored = yield* Stream.runCollect(accounts.read(stream))
    yield* accounts.redact(stored.map(({ messageId }) => messageId), (message) =>
      message._tag === "Booked"
        ? message
        : message._tag === "Opened"
        ? new Opened({ ...message, owner: "redacted" })
        : new YearClosed({ ...message, owner: "redacted" }))
    // What handlers made of the messages is yours.
    yield* sql`update example_owners set owner = 'redacted' where account = ${stream}`
  }))
})

const show = Effect.fn(function*(stream: string) {
  const accounts = yield* Accounts
  yield* Stream.runForEach(accounts.read(stream), ({ message, metadata, version }) => {
    const isRedacted = metadata.redactedAt === undefined ? "" : " (redacted)"
    const content = message._tag === "Booked" ? message.amount : message.owner
    return Console.log(`${version} ${message._tag}: ${content}${isRedacted}`)
  })
})

const program = Effect.gen(function*() {
  const accounts = yield* Accounts
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table if not exists example_owners (account text primary key, owner text not null)`
  yield* sql`insert into example_owners values ('account-1', 'Ada') on conflict do nothing`
  yield* accounts.write("account-1", [
    new Opened({ owner: "Ada" }),
    new Booked({ amount: 70 }),
    new Booked({ amount: -30 })
  ], { expectedVersion: 0 })

  const { deleted, version } = yield* closeYear("account-1")
  yield* Console.log(`${deleted} deleted, the stream is at version ${version}`)
  yield* accounts.write("account-1", new Booked({ amount: 2 }), { expectedVersion: version })
  yield* forgetOwner("account-1")
  yield* show("account-1")

  const { version: after } = yield* accounts.delete("account-1", { expectedVersion: "exists" })
  yield* Console.log(`the stream is at version ${after}`)
})

await program.pipe(Effect.provide(Layer.provideMerge(Accounts.layer, layerDatabase())), Effect.runPromise)
