/** Messages with personal fields, on stores of their own. */
import { Array as Arr, Effect, Layer, Redacted, Schema, type Scope, Stream } from "effect"
import * as KeyEncryption from "../../KeyEncryption.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import * as Personal from "../../Personal.ts"
import { Storage } from "../../Storage.ts"

/** What must not be found anywhere. */
export const canary = "canary-7f3a"

const ofCustomer = { subject: "customerId" } as const

/** Personal fields of two kinds of subjects, at whatever depth. */
export class Registered extends Schema.TaggedClass<Registered>()("Registered", {
  ...Message.fields,
  customerId: Message.tag("customer", Schema.String),
  email: Message.personal(Schema.String, ofCustomer),
  born: Schema.optionalKey(Message.personal(Schema.DateTimeUtc, ofCustomer)),
  address: Schema.optionalKey(
    Schema.Struct({ country: Schema.String, street: Message.personal(Schema.NonEmptyString, ofCustomer) })
  ),
  contacts: Schema.optionalKey(Schema.Array(
    Schema.Struct({ contactId: Schema.Int, phone: Message.personal(Schema.String, { subject: "contactId" }) })
  )),
  names: Schema.optionalKey(Schema.Array(Message.personal(Schema.Struct({ first: Schema.String }), ofCustomer))),
  notes: Schema.optionalKey(
    Schema.Record(Schema.String, Schema.NullOr(Message.personal(Schema.Unknown, ofCustomer)))
  ),
  comment: Schema.optional(Schema.Option(Message.personal(Schema.String, ofCustomer)))
}) {}

/** Types that no other part of the contract declares tags of: its parts share a store. */
export class Renamed extends Schema.TaggedClass<Renamed>()("EmailChanged", {
  ...Message.fields,
  customerId: Schema.String,
  email: Message.personal(Schema.String, ofCustomer)
}) {}

export class Visited extends Schema.TaggedClass<Visited>()("Visited", {
  ...Message.fields,
  customerId: Schema.String,
  page: Schema.Unknown
}) {}

const schema = Schema.Union([Registered, Renamed, Visited, Message.SubjectForgotten])
export type CustomerEvent = typeof schema.Type

const options = { name: "contract", schema } as const

export class Customers extends MessageStore.Service<Customers>()("effect-message-store/testing/Customers", options) {}
export class Returning extends MessageStore.Service<Returning>()("effect-message-store/testing/Returning", {
  ...options,
  personal: {
    whenForgotten: "newKey",
    notice: (subject) => ({ stream: `forgotten ${subject}`, messages: new Message.SubjectForgotten({ subject }) })
  }
}) {}

/** Wrapping keys: 32 bytes that are all the last one of the id. */
export const wrappingKeys = (...ids: ReadonlyArray<string>): Redacted.Redacted<string> =>
  Redacted.make(
    ids.map((id) => `${id}:${btoa(String.fromCharCode(...Arr.replicate(id.charCodeAt(id.length - 1), 32)))}`).join(",")
  )

export const encryption = Layer.orDie(KeyEncryption.layer(wrappingKeys("k1")))

/** What is done on a store of its own, as in another process; `change` says what of its storage is another. */
export const onCustomers = <Self, Store, A, E, R>(
  service:
    & { readonly layerStorage: Layer.Layer<Self, unknown, Storage | KeyEncryption.KeyEncryption> }
    & Effect.Effect<Store, never, Self>,
  use: (store: Store) => Effect.Effect<A, E, R>,
  { change = () => ({}), keys = encryption }: {
    readonly change?: (storage: Storage["Service"]) => Partial<Storage["Service"]>
    readonly keys?: Layer.Layer<KeyEncryption.KeyEncryption>
  } = {}
): Effect.Effect<A, E, Exclude<R, Scope.Scope> | Storage> =>
  Effect.scoped(Effect.gen(function*() {
    const storage = yield* Storage
    const changed = Layer.succeed(Storage, Storage.of({ ...storage, ...change(storage) }))
    const layer = Layer.fresh(Layer.provide(service.layerStorage, [changed, keys]))
    const store = yield* Effect.provide(service, yield* Effect.orDie(Layer.build(layer)))
    return yield* use(store)
  }))

let subjects = 0

/** A subject, and a stream, that no other test uses. */
export const newCustomer = (): string => `customer-${++subjects}-${globalThis.crypto.randomUUID().slice(0, 8)}`

export const renamed = (customerId: string, email = canary) => new Renamed({ customerId, email: Personal.known(email) })

/** The messages of a stream. */
export const messagesOf = (store: Pick<Customers["Service"], "read">, stream: string) =>
  Effect.map(Stream.runCollect(store.read(stream)), Arr.map(({ message }) => message))

/** What is known of the emails of a stream; null: forgotten. */
export const emailsOf = (store: Pick<Customers["Service"], "read">, stream: string) =>
  Effect.map(
    messagesOf(store, stream),
    Arr.flatMap((message) => "email" in message ? [Personal.getOrElse(message.email, () => null)] : [])
  )

/** What is stored of a stream. */
export const storedIn = Effect.fnUntraced(function*(stream: string) {
  const storage = yield* Storage
  const page = yield* storage.readStream({
    stream,
    fromVersion: 1,
    toVersion: 1000,
    direction: "forward",
    limit: 1000
  })
  return page.messages.map(({ data }) => data as Schema.JsonObject)
})
