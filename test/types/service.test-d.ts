/** What a user's types must be, and what must not compile. */
import type { DateTime, Effect, Layer, Scope, Stream } from "effect"
import { Schema } from "effect"
import type {
  DuplicateMessageError,
  InvalidArgumentError,
  InvalidNameError,
  OptimisticConcurrencyError,
  Reader,
  SerializationError,
  SetupError,
  UnsupportedEngineError
} from "effect-message-store"
import { Message, MessageStore, Serializer } from "effect-message-store"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <A, B>(_: Equal<A, B>): void => {}

class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, id: Schema.String }) {}
class Shipped extends Schema.TaggedClass<Shipped>()("Shipped", { ...Message.fields }) {}
const Foreign = Schema.Struct({ key: Schema.String, at: Schema.DateTimeUtc })

class Orders extends MessageStore.Service<Orders>()("test/Orders", {
  name: "orders",
  schema: Schema.Union([Placed, Shipped])
}) {}

declare const orders: Orders["Service"]
const placed = new Placed({ id: "1" })

// The types say all that can fail, and the class of what is read.
is<
  ReturnType<typeof orders.write>,
  Effect.Effect<
    Message.MessagePosition,
    OptimisticConcurrencyError | DuplicateMessageError | SerializationError | InvalidArgumentError | SqlError
  >
>(true)
is<
  ReturnType<typeof orders.read>,
  Stream.Stream<Message.StoredMessage<Placed | Shipped>, InvalidArgumentError | SerializationError | SqlError>
>(true)
is<typeof orders.reader, Effect.Effect<Reader.Reader<Placed | Shipped>, SqlError, Scope.Scope>>(true)
is<typeof Orders.layerMemory, Layer.Layer<Orders, InvalidNameError>>(true)
is<
  typeof Orders.layerNoMigrations,
  Layer.Layer<Orders, InvalidNameError | SetupError | UnsupportedEngineError | SqlError, SqlClient>
>(true)
is<Layer.Services<typeof Orders.layer>, SqlClient>(true)

void orders.write("s", placed)
void orders.write("s", [placed, new Shipped({})], {
  expectedVersion: "exists",
  metadata: { correlationId: "c", mine: [1] }
})

// @ts-expect-error -- not a message of this store
void orders.write("s", { _tag: "Nope" })
// @ts-expect-error -- nothing to write
void orders.write("s", [])
// @ts-expect-error -- no such expectation
void orders.write("s", placed, { expectedVersion: "any" })
// @ts-expect-error -- metadata is JSON
void orders.write("s", placed, { metadata: { at: new Date() } })

// @ts-expect-error -- the class itself is missing
class _NoSelf extends MessageStore.Service()("test/NoSelf", { name: "x", schema: Placed }) {}
// @ts-expect-error -- neither a schema nor a serializer
void MessageStore.Service<Orders>()("test/Nothing", { name: "x" })
// @ts-expect-error -- nobody knows where this message keeps its id and its time
void MessageStore.Service<Orders>()("test/Foreign", { name: "x", schema: Foreign })
void MessageStore.Service<Orders>()("test/Foreign", { name: "x", schema: Foreign, id: (m) => m.key, time: (m) => m.at })
void MessageStore.Service<Orders>()("test/Override", { name: "x", schema: Placed, id: (m) => m.id })

declare const serializer: Serializer.MessageSerializer<{ readonly key: string; readonly at: DateTime.Utc }>
// @ts-expect-error -- the same, written by hand
void MessageStore.Service<Orders>()("test/Foreign", { name: "x", serializer })
void MessageStore.Service<Orders>()("test/Foreign", { name: "x", serializer, id: (m) => m.key, time: (m) => m.at })

// @ts-expect-error -- there is no schema that could be compiled
void MessageStore.Service<Orders>()("test/By", {
  name: "x",
  serializer,
  id: (m) => m.key,
  time: (m) => m.at,
  compile: true
})

class Config extends Schema.Class<Config>("Config")({ key: Schema.String }) {}
declare const needsService: Schema.Codec<Config, unknown, SqlClient, SqlClient>
// @ts-expect-error -- a serializer runs without services
Serializer.fromSchema(needsService)
