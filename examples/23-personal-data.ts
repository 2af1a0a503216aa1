/**
 * What customers tell of themselves is stored encrypted, each under a key of theirs. Whoever asks to be forgotten is: the key is removed,
 * in the messages nothing is touched, and the read model deletes its row when it sees the notice.
 *
 *   node --conditions=@effect-message-store/source examples/23-personal-data.ts
 */
import { Console, Effect, Layer, References, Schema, Stream } from "effect"
import {
  AggregatedStream,
  KeyEncryption,
  Message,
  MessageStore,
  Partitioner,
  Personal,
  PersonalDataError
} from "effect-message-store"
import { SqlClient } from "effect/sql"
import { layerDatabase } from "./database.ts"

class Registered extends Schema.TaggedClass<Registered>()("Registered", {
  ...Message.fields,
  customerId: Schema.String,
  country: Schema.String,
  email: Message.personal(Schema.String, { subject: "customerId" })
}) {}

class Customers extends MessageStore.Service<Customers>()("examples/Customers", {
  name: "example_customers",
  schema: Schema.Union([Registered, Message.SubjectForgotten]),
  personal: {
    notice: (subject) => ({ stream: subject, messages: new Message.SubjectForgotten({ subject }) })
  }
}) {}

class ByCustomer extends AggregatedStream.Service<ByCustomer>()("examples/ByCustomer", {
  store: Customers,
  name: "example_by_customer",
  patterns: "customer-%",
  partitioner: Partitioner.streamName(4)
}) {}

/** Each message in a transaction: a row is there, or gone, exactly when its message was handled. */
const keepEmails = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const stream = yield* ByCustomer
  const subscription = yield* stream.subscription({ name: "example_emails", delivery: "transactional" })
  const remove = (customer: string) => sql`delete from example_emails where customer = ${customer}`
  const handler = subscription.handlers({
    Registered: ({ customerId, email }) =>
      Personal.match(email, {
        Known: (known) =>
          sql`insert into example_emails values (${customerId}, ${known}) on conflict (customer) do nothing`,
        Forgotten: () => remove(customerId)
      }),
    SubjectForgotten: ({ subject }) => remove(subject)
  })
  yield* stream.projector.runOnce
  yield* subscription.drain(handler)
  const emails = yield* sql<{ readonly email: string }>`select email from example_emails order by email`
  yield* Console.log(`in the read model: ${emails.map(({ email }) => email).join(", ")}`)
})

const program = Effect.gen(function*() {
  const customers = yield* Customers
  const sql = yield* SqlClient.SqlClient
  yield* sql`drop table if exists example_emails`
  yield* sql`create table example_emails (customer text primary key, email text not null)`

  const register = Effect.fn(function*(customerId: string, address: string) {
    const email = Personal.known(address)
    yield* customers.write(customerId, new Registered({ customerId, country: "UK", email }))
    yield* Console.log(`registered: ${email}`)
  })
  // Ids that say nothing of a person.
  const ada = `customer-${globalThis.crypto.randomUUID()}`
  yield* register(ada, "ada@example.com")
  yield* register(`customer-${globalThis.crypto.randomUUID()}`, "grace@example.com")
  yield* keepEmails

  yield* customers.forget(ada)

  const [stored] = yield* Stream.runCollect(customers.read(ada, { limit: 1 }))
  if (stored?.message._tag === "Registered") {
    const { country, email } = stored.message
    yield* Console.log(`somebody from the ${country}: ${Personal.getOrElse(email, () => "forgotten")}`)
  }
  yield* keepEmails

  yield* register(ada, "ada@example.com").pipe(
    Effect.catchTag(
      "SerializationError",
      ({ cause }) => cause instanceof PersonalDataError ? Console.log(`refused: ${cause.reason}`) : Effect.void
    )
  )
})

// In an application, the text of the key comes from the configuration: KeyEncryption.layerConfig(Config.Redacted("PERSONAL_DATA_KEYS")).
const encryption = Layer.unwrap(Effect.map(KeyEncryption.generate("2026"), KeyEncryption.layer))

const stores = ByCustomer.layer.pipe(
  Layer.provideMerge(Customers.layer),
  Layer.provideMerge(Layer.mergeAll(layerDatabase(), encryption))
)

await program.pipe(
  Effect.provide(stores),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.runPromise
)
