/** Aggregated streams, subscriptions and projections, and how they are. */
import { Duration, Effect, Result } from "effect"
import type { DateTime } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { checkPartition, checkWhole, maximumPartition } from "../internal/checks.ts"
import type { BuiltIn } from "../Partitioner.ts"
import { statusOf, type VersionStatus } from "../projection/progress.ts"
import type {
  Catalogue,
  CataloguedConsumer,
  CataloguedStream,
  ObjectsVersion,
  OperatorStorage,
  PartitionStatus,
  SubscriptionTotals
} from "../Storage.ts"
import { messagesIn, subscriptionOf } from "../Storage.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"
import { isOutdated, type Opened, type OperatorError } from "./opened.ts"
import { checkLimit, numberCursor, type Page, pageOf, type PageOptions } from "./page.ts"

/** An aggregated stream, and how far its projector has come. Global positions are 0 where there is none. */
export interface AggregatedStreamStatus {
  readonly name: string
  /** LIKE patterns of names of streams; none if nothing was linked yet. */
  readonly patterns: ReadonlyArray<string>
  /** Undefined: a function of the application. */
  readonly partitioner: BuiltIn | undefined
  readonly objects: ObjectsVersion
  /** Undefined if its objects are of an earlier version. */
  readonly progress: StreamProgress | undefined
}

/** How far a projector has come. */
export interface StreamProgress {
  readonly partitions: number
  /** How many messages are linked. */
  readonly messages: number
  /** How many wait to be linked, about: see `statistics` of an aggregated stream. */
  readonly waiting: number
  /** How long the first of them has been stored. */
  readonly waitingFor: Duration.Duration | undefined
  readonly linkedGlobalPosition: number
  readonly scannedGlobalPosition: number
  /** When a projector looked last, up to ten seconds late; undefined: none has. */
  readonly scannedAt: DateTime.Utc | undefined
}

/** A subscription as a whole. */
export interface SubscriptionStatus {
  readonly name: string
  readonly aggregatedStream: string
  /** The version of a projection that it belongs to. */
  readonly projection: { readonly name: string; readonly version: number } | undefined
  readonly objects: ObjectsVersion
  /** Undefined if its objects are of an earlier version. Its lag and age count what is not linked yet as well. */
  readonly totals: SubscriptionTotals | undefined
}

/** A projection with all its versions. */
export interface ProjectionStatus {
  readonly name: string
  readonly aggregatedStream: string
  readonly objects: ObjectsVersion
  readonly versions: ReadonlyArray<VersionStatus>
}

/** Asks for partitions. */
export interface PartitionsOptions extends PageOptions {
  /** Leaves out those with which all is well: nothing to be handled, nothing parked, paused or halted. Default `false`. */
  readonly onlyUnfinished?: boolean | undefined
}

/** Asks for messages of a partition, in the order of positions. */
export interface LinkedOptions extends PageOptions {
  /** The first position, included. Default 0. */
  readonly fromPosition?: number | undefined
}

/** A message in a partition of an aggregated stream. */
export interface LinkedMessage extends Message {
  readonly partition: number
  readonly position: number
}

/** Which version of which projection a subscription is of. */
export const projectionOf = (
  { projections }: Catalogue,
  subscription: string
): SubscriptionStatus["projection"] => {
  const [, name = "", digits = ""] = /^(.*)_v(\d+)$/.exec(subscription) ?? []
  const version = Number(digits)
  return projections.some((each) => each.name === name) && subscriptionOf(name, version) === subscription
    ? { name, version }
    : undefined
}

export const streamStatus = (opened: Opened) =>
  Effect.fnUntraced(function*(stream: CataloguedStream) {
    const { definition: { name, partitioner, patterns }, objects } = stream
    const described = { name, patterns, partitioner, objects }
    if (isOutdated(objects)) return { ...described, progress: undefined }
    const storage = yield* opened.open(stream)
    const heads = yield* storage.partitions
    const { linked, scanned, scannedAt } = yield* storage.progress
    const waitingFor = yield* storage.waitingFor
    const progress: StreamProgress = {
      partitions: heads.length,
      messages: messagesIn(heads),
      waiting: yield* storage.waiting,
      waitingFor: waitingFor === undefined ? undefined : Duration.millis(waitingFor),
      linkedGlobalPosition: linked,
      scannedGlobalPosition: scanned,
      scannedAt
    }
    return { ...described, progress }
  })

/** What waits to be linked: no subscription has it behind it. */
export interface NotLinked {
  readonly messages: number
  readonly age: Duration.Duration | undefined
}

/** Asks each aggregated stream once. */
export const notLinkedIn = Effect.fnUntraced(function*(opened: Opened, { aggregatedStreams }: Catalogue) {
  const asked = new Map<string, Effect.Effect<NotLinked, OperatorError>>()
  for (const stream of aggregatedStreams) {
    if (isOutdated(stream.objects)) continue
    const ask = Effect.gen(function*() {
      const { waiting, waitingFor } = yield* opened.open(stream)
      const age = yield* waitingFor
      return { messages: yield* waiting, age: age === undefined ? undefined : Duration.millis(age) }
    })
    asked.set(stream.definition.name, yield* Effect.cached(ask))
  }
  return ({ aggregatedStream }: CataloguedConsumer): Effect.Effect<NotLinked, OperatorError> =>
    asked.get(aggregatedStream) ?? Effect.succeed({ messages: 0, age: undefined })
})

const oldest = (one: Duration.Duration | undefined, other: Duration.Duration | undefined) =>
  one === undefined || other === undefined ? one ?? other : Duration.max(one, other)

const subscriptionStatus = (
  storage: OperatorStorage,
  notLinked: (consumer: CataloguedConsumer) => Effect.Effect<NotLinked, OperatorError>
) =>
  Effect.fnUntraced(function*(
    catalogue: Catalogue,
    consumer: CataloguedConsumer
  ): Effect.fn.Return<SubscriptionStatus, OperatorError> {
    const { aggregatedStream, name, objects } = consumer
    const described = { name, aggregatedStream, projection: projectionOf(catalogue, name), objects }
    if (isOutdated(objects)) return { ...described, totals: undefined }
    // First: one that is linked meanwhile is not left out.
    const { age, messages } = yield* notLinked(consumer)
    const totals = yield* storage.totals(consumer)
    return { ...described, totals: { ...totals, lag: totals.lag + messages, age: oldest(totals.age, age) } }
  })

export const projectionStatus = (opened: Opened) =>
  Effect.fnUntraced(function*(catalogue: Catalogue, consumer: CataloguedConsumer) {
    const { aggregatedStream, name, objects } = consumer
    const { projected, stream } = yield* opened.projectionIn(catalogue, consumer)
    const status: ProjectionStatus = { name, aggregatedStream, objects, versions: yield* statusOf(stream, projected) }
    return status
  })

/** Of a list of the catalogue a page, each item with how it is. */
const paged = <A, B, E>(
  options: PageOptions | undefined,
  all: ReadonlyArray<A>,
  nameOf: (item: A) => string,
  status: (item: A) => Effect.Effect<B, E>
): Effect.Effect<Page<B>, E | InvalidArgumentError> =>
  Effect.flatMap(
    Effect.fromResult(pageOf(all, nameOf, options)),
    ({ items, next }) => Effect.map(Effect.forEach(items, status), (described) => ({ items: described, next }))
  )

export const make = (storage: OperatorStorage, opened: Opened, typeOf: TypeOf) => {
  const nameOf = ({ name }: { readonly name: string }) => name

  return {
    aggregatedStreams: (
      options?: PageOptions
    ): Effect.Effect<Page<AggregatedStreamStatus>, OperatorError> =>
      Effect.flatMap(
        storage.catalogue,
        ({ aggregatedStreams }) =>
          paged(options, aggregatedStreams, ({ definition }) => definition.name, streamStatus(opened))
      ),

    subscriptions: (options?: PageOptions): Effect.Effect<Page<SubscriptionStatus>, OperatorError> =>
      Effect.gen(function*() {
        const catalogue = yield* storage.catalogue
        const status = subscriptionStatus(storage, yield* notLinkedIn(opened, catalogue))
        return yield* paged(options, catalogue.subscriptions, nameOf, (each) => status(catalogue, each))
      }),

    projections: (options?: PageOptions): Effect.Effect<Page<ProjectionStatus>, OperatorError> =>
      Effect.flatMap(
        storage.catalogue,
        (catalogue) =>
          paged(options, catalogue.projections, nameOf, (each) => projectionStatus(opened)(catalogue, each))
      ),

    partitions: Effect.fnUntraced(function*(
      name: string,
      { cursor, limit, onlyUnfinished = false }: PartitionsOptions = {}
    ): Effect.fn.Return<Page<PartitionStatus>, OperatorError> {
      const checked = yield* Effect.fromResult(Result.all({ after: numberCursor(cursor), limit: checkLimit(limit) }))
      const { consumer } = yield* opened.subscription(name)
      const items = yield* storage.partitions(consumer, { ...checked, onlyUnfinished })
      const last = items.at(-1)
      return {
        items,
        next: items.length === checked.limit && last !== undefined ? String(last.partition) : undefined
      }
    }),

    linked: Effect.fnUntraced(function*(
      name: string,
      partition: number,
      { cursor, fromPosition = 0, limit }: LinkedOptions = {}
    ): Effect.fn.Return<Page<LinkedMessage>, OperatorError> {
      const { after, ...query } = yield* Effect.fromResult(Result.all({
        partition: checkPartition(partition),
        fromPosition: checkWhole("fromPosition", fromPosition, 0, maximumPartition),
        limit: checkLimit(limit),
        after: numberCursor(cursor)
      }))
      const stream = yield* opened.aggregatedStream(name)
      const { messages, more } = yield* stream.readPartition({ ...query, fromPosition: after ?? query.fromPosition })
      const last = messages.at(-1)
      return {
        items: messages.map((each) => ({ ...toMessage(typeOf)(each), partition, position: each.position })),
        next: more && last !== undefined ? String(last.position + 1) : undefined
      }
    })
  }
}
