/** Finds what an operator names, and opens it: nothing is made. */
import { Effect } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidArgumentError, type InvalidNameError, SetupError } from "../errors.ts"
import { printable } from "../internal/printable.ts"
import type {
  AggregatedStorage,
  Catalogue,
  CataloguedConsumer,
  CataloguedStream,
  ObjectsVersion,
  OperatorStorage
} from "../Storage.ts"

/** Why something cannot be looked at, or done. */
export type OperatorError = InvalidArgumentError | InvalidNameError | SetupError | SqlError

/** The store itself was opened: nothing runs migrations here. */
const neverMigrates = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.catchTag(effect as Effect.Effect<A, E | MigrationError>, "MigrationError", Effect.die) as Effect.Effect<
    A,
    Exclude<E, MigrationError>
  >

const named = <A>(argument: string, what: string, all: ReadonlyArray<A>, nameOf: (item: A) => string, name: string) => {
  const found = all.find((item) => nameOf(item) === name)
  if (found !== undefined) return Effect.succeed(found)
  const names = all.slice(0, 10).map(nameOf).join(", ")
  const known = names === "" ? "it has none" : `it has ${names}${all.length > 10 ? ", …" : ""}`
  return Effect.fail(
    new InvalidArgumentError({
      argument,
      reason: `must name ${what} of this store, not "${printable(name)}": ${known}`
    })
  )
}

/** Whether objects are older than this build: it cannot work with them. */
export const isOutdated = ({ known, made }: ObjectsVersion): boolean => made !== undefined && made < known

/** Whether they are of a newer build than this one. */
export const isNewer = ({ known, made }: ObjectsVersion): boolean => made !== undefined && made > known

const requireCurrent = (identifier: string, objects: ObjectsVersion) =>
  isOutdated(objects)
    ? Effect.fail(
      new SetupError({ identifier, reason: "was made by an earlier version: run what `migrations` prints" })
    )
    : Effect.void

export const make = (storage: OperatorStorage) => {
  const open = (stream: CataloguedStream): Effect.Effect<AggregatedStorage, InvalidNameError | SetupError | SqlError> =>
    Effect.andThen(
      requireCurrent(stream.definition.name, stream.objects),
      neverMigrates(storage.open(stream.definition))
    )

  const streamIn = (catalogue: Catalogue, name: string) =>
    named("aggregatedStream", "an aggregated stream", catalogue.aggregatedStreams, (each) => each.definition.name, name)

  /** An aggregated stream, by its name. */
  const aggregatedStream = (name: string) =>
    Effect.flatMap(storage.catalogue, (catalogue) => Effect.flatMap(streamIn(catalogue, name), open))

  const streamOf = (catalogue: Catalogue, consumer: CataloguedConsumer) =>
    Effect.flatMap(streamIn(catalogue, consumer.aggregatedStream), open)

  /** A subscription of the catalogue. */
  const subscriptionIn = Effect.fnUntraced(function*(catalogue: Catalogue, consumer: CataloguedConsumer) {
    yield* requireCurrent(consumer.name, consumer.objects)
    const stream = yield* streamOf(catalogue, consumer)
    return { consumer, stream, subscribed: yield* neverMigrates(stream.subscription(consumer.name)) }
  })

  /** A subscription, by its name. */
  const subscription = Effect.fnUntraced(function*(name: string) {
    const catalogue = yield* storage.catalogue
    const { subscriptions } = catalogue
    const consumer = yield* named("subscription", "a subscription", subscriptions, (each) => each.name, name)
    return yield* subscriptionIn(catalogue, consumer)
  })

  /** A projection of the catalogue. */
  const projectionIn = Effect.fnUntraced(function*(catalogue: Catalogue, consumer: CataloguedConsumer) {
    yield* requireCurrent(consumer.name, consumer.objects)
    const stream = yield* streamOf(catalogue, consumer)
    return { consumer, stream, projected: yield* neverMigrates(stream.projection(consumer.name)) }
  })

  /** A projection, by its name. */
  const projection = Effect.fnUntraced(function*(name: string) {
    const catalogue = yield* storage.catalogue
    const consumer = yield* named("projection", "a projection", catalogue.projections, (each) => each.name, name)
    return yield* projectionIn(catalogue, consumer)
  })

  return { aggregatedStream, open, projection, projectionIn, subscription, subscriptionIn }
}

export type Opened = ReturnType<typeof make>
