/** What the types of personal fields must be, and what must not compile. */
import { type Effect, type Layer, Schema } from "effect"
import {
  AggregatedStream,
  type KeyEncryption,
  Message,
  MessageStore,
  Partitioner,
  Personal
} from "effect-message-store"
import type { SqlClient } from "effect/sql"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <A, B>(_: Equal<A, B>): void => {}

class Registered extends Schema.TaggedClass<Registered>()("Registered", {
  ...Message.fields,
  customerId: Message.tag("customer", Schema.String),
  email: Message.personal(Schema.String, { subject: "customerId" }),
  born: Schema.optionalKey(Message.personal(Schema.DateTimeUtc, { subject: "customerId" })),
  address: Schema.Struct({ city: Schema.String, street: Message.personal(Schema.String, { subject: "customerId" }) })
}) {}
class Visited extends Schema.TaggedClass<Visited>()("Visited", { ...Message.fields, page: Schema.String }) {}

class Customers extends MessageStore.Service<Customers>()("test/Customers", {
  name: "customers",
  schema: Schema.Union([Registered, Visited]),
  personal: { whenForgotten: "newKey", notice: (subject) => ({ stream: subject, messages: new Visited({ page: "" }) }) }
}) {}
class Visits extends MessageStore.Service<Visits>()("test/Visits", { name: "visits", schema: Visited }) {}

// A field is known or forgotten, and whoever reads it deals with both.
declare const registered: Registered
is<typeof registered.email, Personal.Personal<string>>(true)
is<typeof registered.customerId, string>(true)
const { email } = registered
const text = Personal.match(email, { Known: (known) => known.length, Forgotten: () => undefined })
is<typeof text, number | undefined>(true)
if (email._tag === "Known") is<typeof email.value, string>(true)
// @ts-expect-error -- it may be forgotten
void email.value
// @ts-expect-error -- nor is it the value itself
const plain: string = email
void plain
void new Registered({ customerId: "", email: Personal.forgotten, address: { city: "", street: Personal.known("") } })
// @ts-expect-error -- a number is no email
void new Registered({ customerId: "", email: Personal.known(1), address: { city: "", street: Personal.forgotten } })

// Stores of personal data need what encrypts it, and no others do.
type Needs<L> = L extends Layer.Layer<infer _, infer __, infer R> ? R : never
is<Needs<typeof Customers.layer>, SqlClient.SqlClient | KeyEncryption.KeyEncryption>(true)
is<Needs<typeof Customers.layerMemory>, KeyEncryption.KeyEncryption>(true)
is<Needs<typeof Visits.layer>, SqlClient.SqlClient>(true)
is<Needs<typeof Visits.layerMemory>, never>(true)
declare const customers: Customers["Service"]
is<ReturnType<typeof customers.forget>, Effect.Effect<void, MessageStore.ForgetError>>(true)

// What is personal is no tag, and a tag is not personal.
// @ts-expect-error -- a personal field cannot be a tag
void Message.tag("email", Message.personal(Schema.String, { subject: "customerId" }))
// @ts-expect-error -- nor can an array of them
void Message.tag("emails", Schema.Array(Message.personal(Schema.String, { subject: "customerId" })))
// @ts-expect-error -- a tag cannot be personal
void Message.personal(Message.tag("email", Schema.String), { subject: "customerId" })
// @ts-expect-error -- whose data it is has to be said
void Message.personal(Schema.String)

// Nor does it say which partition a message belongs to.
const options = { name: "s", patterns: "%" }
void customers.aggregatedStream({ ...options, partitioner: Partitioner.field("customerId", 4) })
void customers.aggregatedStream({ ...options, partitioner: Partitioner.field(["address", "city"], 4) })
// @ts-expect-error -- personal
void customers.aggregatedStream({ ...options, partitioner: Partitioner.field("email", 4) })
// @ts-expect-error -- personal, and optional
void customers.aggregatedStream({ ...options, partitioner: Partitioner.field("born", 4) })
// @ts-expect-error -- personal, in an object
void customers.aggregatedStream({ ...options, partitioner: Partitioner.field(["address", "street"], 4) })
class ByCustomer extends AggregatedStream.Service<ByCustomer>()("test/ByCustomer", {
  ...options,
  store: Customers,
  partitioner: Partitioner.field("customerId", 4)
}) {}
void ByCustomer
class ByEmail extends AggregatedStream.Service<ByEmail>()("test/ByEmail", {
  ...options,
  store: Customers,
  // @ts-expect-error -- personal
  partitioner: Partitioner.field("email", 4)
}) {}
void ByEmail

class Other extends MessageStore.Service<Other>()("test/Other", {
  name: "other",
  schema: Visited,
  // @ts-expect-error -- the notice is a message of the store
  personal: { notice: () => ({ stream: "", messages: registered }) }
}) {}
void Other
