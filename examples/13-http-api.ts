/**
 * An HTTP API whose conflicts are typed: the errors of the library are schemas, so that an endpoint declares them, each
 * with its status, and its clients get them back as what they are.
 *
 *   npm test -- test/examples.test.ts -t booking
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Message, MessageStore, OptimisticConcurrencyError } from "effect-message-store"
import { HttpRouter, HttpServer } from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiError,
  HttpApiGroup,
  HttpApiSchema,
  HttpApiTest
} from "effect/http-api"
import type { SqlError } from "effect/sql/SqlError"

class SeatBooked extends Schema.TaggedClass<SeatBooked>()("SeatBooked", {
  ...Message.fields,
  passenger: Schema.String
}) {}

class Bookings extends MessageStore.Service<Bookings>()("examples/Bookings", {
  name: "example_bookings",
  schema: SeatBooked
}) {}

class FlightFull extends Schema.TaggedError<FlightFull>()("FlightFull", { flight: Schema.String }, {
  httpApiStatus: 422
}) {}

const Api = HttpApi.make("booking").add(
  HttpApiGroup.make("flights").add(
    HttpApiEndpoint.put("book", "/flights/:flight/seats", {
      params: { flight: Schema.String },
      payload: Schema.Struct({ passenger: Schema.String, version: Schema.Natural }),
      success: Schema.Struct({ version: Schema.Natural }),
      error: [
        FlightFull,
        OptimisticConcurrencyError.pipe(HttpApiSchema.status(409)),
        HttpApiError.ServiceUnavailable
      ]
    })
  )
)

/** What passes is for the client to try again; what stays is a fault of ours, and becomes a 500. */
const unavailable = (error: SqlError) =>
  error.isRetryable ? Effect.fail(new HttpApiError.ServiceUnavailable()) : Effect.die(error)

const Flights = HttpApiBuilder.group(
  Api,
  "flights",
  Effect.fn(function*(handlers) {
    const bookings = yield* Bookings
    return handlers.handle(
      "book",
      Effect.fn(
        function*({ params: { flight }, payload: { passenger, version } }) {
          if (version >= 2) return yield* new FlightFull({ flight })
          // The version is the one that the client has seen: it learns of a conflict, and of the version there is now.
          return yield* bookings.write(flight, new SeatBooked({ passenger }), { expectedVersion: version })
        },
        Effect.catchTags({
          SqlError: unavailable,
          // A new message, checked by the schema of the endpoint: these would be faults in this program.
          DuplicateMessageError: Effect.die,
          InvalidArgumentError: Effect.die,
          SerializationError: Effect.die
        })
      )
    )
  })
)

describe("booking", () => {
  const layer = Flights.pipe(Layer.provideMerge(Bookings.layerMemory), Layer.provideMerge(HttpServer.layerServices))

  it.effect("fails at the client with the error that the store gave", () =>
    Effect.gen(function*() {
      const client = yield* HttpApiTest.groups(Api, ["flights"])
      const bookBy = (passenger: string, version: number) =>
        client.flights.book({ params: { flight: "LH454" }, payload: { passenger, version } })

      assert.deepStrictEqual(yield* bookBy("Ada", 0), { version: 1 })
      const error = yield* Effect.flip(bookBy("Grace", 0))
      assert.instanceOf(error, OptimisticConcurrencyError)
      if (error._tag === "OptimisticConcurrencyError") yield* bookBy("Grace", error.actualVersion)
      assert.strictEqual((yield* Effect.flip(bookBy("Edsger", 2)))._tag, "FlightFull")
    }).pipe(Effect.provide(layer)))

  it("answers with a status for each", async () => {
    const { dispose, handler } = HttpRouter.toWebHandler(Layer.provide(HttpApiBuilder.layer(Api), layer), {
      disableLogger: true
    })
    const put = async (version: number) => {
      const body = JSON.stringify({ passenger: "Ada", version })
      const headers = { "content-type": "application/json" }
      return (await handler(new Request("http://localhost/flights/UA1/seats", { method: "PUT", body, headers }))).status
    }
    assert.deepStrictEqual([await put(0), await put(0), await put(1), await put(2)], [200, 409, 200, 422])
    await dispose()
  })
})
