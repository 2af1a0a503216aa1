/**
 * 20,000 departures of US flights, January to March 2001, as messages: a sample that the npm package `vega-datasets`
 * took from the on-time statistics of the Bureau of Transportation Statistics.
 */
import { Array, Effect, Schema, SchemaGetter } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"

/** `occurredAt` is the actual departure in the local time of the airport, written as if it were UTC. */
export class FlightDeparted extends Schema.TaggedClass<FlightDeparted>()("FlightDeparted", {
  ...Message.fields,
  origin: Schema.String,
  destination: Schema.String,
  miles: Schema.Natural,
  /** On arrival, in minutes; below zero when the flight was early. */
  delay: Schema.Int
}) {}

export class Flights extends MessageStore.Service<Flights>()("demo/Flights", {
  name: "demo_flights",
  schema: FlightDeparted
}) {}

/** All departures of one airport, in the order in which they happened: what its stream has to hold. */
export interface Airport {
  readonly stream: string
  readonly departures: Array.NonEmptyReadonlyArray<FlightDeparted>
}

const AirportCode = Schema.String.check(Schema.isPattern(/^[A-Z]{3}$/))

/** The file has `2001/01/31 18:05`. */
const LocalTime = Schema.String.pipe(Schema.decodeTo(Schema.DateTimeUtcFromString, {
  decode: SchemaGetter.transform((text: string) => `${text.replaceAll("/", "-").replace(" ", "T")}Z`),
  encode: SchemaGetter.forbidden(() => "the file is only read")
}))

const File = Schema.fromJsonString(Schema.Array(Schema.Struct({
  date: LocalTime,
  delay: Schema.Int,
  distance: Schema.Natural,
  origin: AirportCode,
  destination: AirportCode
})))

type Flight = (typeof File.Type)[number]

export const loadAirports = Effect.gen(function*() {
  const file = new URL("../data/flights-20k.json", import.meta.resolve("vega-datasets"))
  const flights = yield* Schema.decodeEffect(File)(yield* Effect.promise(() => readFile(file, "utf8")))
  const airports = Object.entries(Array.groupBy(flights, (flight) => flight.origin))
  return airports.toSorted(([a], [b]) => a < b ? -1 : 1).map(([origin, ofOrigin]): Airport => ({
    stream: `airport-${origin}`,
    departures: Array.map(ofOrigin, toMessage) // the file is in the order of time
  }))
})

const toMessage = ({ date, delay, destination, distance, origin }: Flight, index: number) =>
  new FlightDeparted({
    messageId: messageId([origin, index, date.epochMilliseconds, destination, distance, delay].join(" ")),
    occurredAt: date,
    origin,
    destination,
    miles: distance,
    delay
  })

const namespace = Buffer.from("d37902d7a51f440c86d0d7918556f3c8", "hex")

/**
 * The same flight gets the same id in every run: that is how `synchronize` knows which ones are stored already. A
 * UUIDv5 (RFC 9562): the SHA-1 of a namespace, here the demo's own, and a name, here the flight's content and its
 * place in the stream.
 */
const messageId = (name: string): string => {
  const bytes = createHash("sha1").update(namespace).update(name).digest().subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-")
}
