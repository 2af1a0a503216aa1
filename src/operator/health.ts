/** Whether all is well, and if not, why. */
import { type DateTime, Duration, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { isForbidden, saidBy } from "../internal/refusal.ts"
import {
  type Catalogue,
  type CataloguedConsumer,
  type CataloguedStream,
  type ObjectsVersion,
  type Storage,
  subscriptionOf
} from "../Storage.ts"
import { checkBounds, type HealthBounds } from "./bounds.ts"
import { type NotLinked, notLinkedIn, projectionStatus, streamStatus } from "./consumers.ts"
import * as Judge from "./judge.ts"
import { isOutdated, type Opened, type OperatorError } from "./opened.ts"
import { type Problem, problem } from "./problem.ts"

/** How a store is. */
export interface Health {
  /** Whether there is no problem, warnings aside. */
  readonly isHealthy: boolean
  readonly problems: ReadonlyArray<Problem>
  /**
   * How many messages wait: to be linked, or linked and not acknowledged by a subscription, each of which counts for itself. Not
   * those of versions that readers do not see.
   */
  readonly waiting: number
  /** By the clock of the database. */
  readonly at: DateTime.Utc
}

/** What was found in a part of the store. */
interface Finding {
  readonly problems: ReadonlyArray<Problem>
  /** How many messages wait there. */
  readonly waiting: number
}

const finding = (problems: ReadonlyArray<Problem>, waiting = 0): Finding => ({ problems, waiting })

/** So many partitions of a subscription are looked at, of those with something to be handled. */
const mostPartitions = 1000

const isCurrent = ({ objects }: { readonly objects: ObjectsVersion }) => !isOutdated(objects)

/** Judges the health of a store. `bounded` bounds the time of each look. */
export const make = (
  storage: Storage["Service"],
  opened: Opened,
  store: string,
  bounded: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
) => {
  const { operator } = storage

  /** What the role may not look at is told as a problem. */
  const allowed = <E>(of: string, look: Effect.Effect<Finding, E>): Effect.Effect<Finding, E | SqlError> =>
    Effect.catchIf(
      bounded(look),
      isForbidden,
      (error) =>
        Effect.succeed(finding([problem(of, "notAllowed", saidBy(error as SqlError), { severity: "warning" })]))
    )

  const schedule = (measure: Judge.Measure) =>
    allowed(
      store,
      Effect.map(operator.scheduledTotals, (totals) => finding(Judge.ofSchedule(store, totals, measure)))
    )

  const tags = allowed(
    store,
    Effect.map(storage.declaredTags, (declared) => {
      const incomplete = declared.tags.filter(({ isComplete }) => !isComplete).map(({ tag }) => tag)
      return finding(Judge.ofTags(store, Array.from(new Set(incomplete))))
    })
  )

  const aggregatedStream = (stream: CataloguedStream, measure: Judge.Measure) => {
    const of = stream.definition.name
    return allowed(
      of,
      Effect.map(
        streamStatus(opened)(stream),
        ({ progress }) =>
          progress === undefined ? finding([]) : finding(Judge.ofStream(of, progress, measure), progress.waiting)
      )
    )
  }

  const subscription = (
    consumer: CataloguedConsumer,
    { isIdle, notLinked }: { readonly isIdle: boolean; readonly notLinked: Effect.Effect<NotLinked, OperatorError> },
    measure: Judge.Measure
  ) => {
    const { name } = consumer
    return allowed(
      name,
      Effect.gen(function*() {
        // First: one that is linked meanwhile is not left out.
        const { messages } = yield* notLinked
        const totals = yield* operator.totals(consumer)
        if (totals.isVoid) return finding([problem(name, "rebuilt", "its aggregated stream was rebuilt: reset it")])
        const query = { after: undefined, limit: mostPartitions, onlyUnfinished: true }
        const partitions = yield* operator.partitions(consumer, query)
        const seen = { name, totals, lag: totals.lag + messages, partitions, isIdle }
        return finding(Judge.ofSubscription(seen, measure), isIdle ? 0 : totals.lag)
      })
    )
  }

  /** The subscriptions of versions of a projection that readers do not see. */
  const unseen = (catalogue: Catalogue, projection: CataloguedConsumer) =>
    Effect.map(
      projectionStatus(opened)(catalogue, projection),
      ({ name, versions }) =>
        versions.filter(({ state }) => state !== "promoted").map(({ version }) => subscriptionOf(name, version))
    )

  return Effect.fnUntraced(function*(given: HealthBounds = {}): Effect.fn.Return<Health, OperatorError> {
    const bounds = yield* Effect.fromResult(checkBounds(given))
    const { catalogue, vitals } = yield* bounded(Effect.all({
      catalogue: operator.catalogue,
      vitals: operator.vitals(Duration.toMillis(bounds.transaction))
    }))
    const measure: Judge.Measure = { bounds, now: vitals.now }
    const all: Array<Finding> = [
      finding([...Judge.ofVersions(store, catalogue), ...Judge.ofDatabase(vitals, measure)]),
      yield* schedule(measure),
      yield* tags
    ]
    for (const stream of catalogue.aggregatedStreams.filter(isCurrent)) {
      all.push(yield* aggregatedStream(stream, measure))
    }
    const idle = new Set<string>()
    for (const projection of catalogue.projections.filter(isCurrent)) {
      const noting = Effect.map(unseen(catalogue, projection), (names) => {
        for (const name of names) idle.add(name)
        return finding([])
      })
      all.push(yield* allowed(projection.name, noting))
    }
    const notLinked = yield* notLinkedIn(opened, catalogue)
    for (const consumer of catalogue.subscriptions.filter(isCurrent)) {
      const of = { isIdle: idle.has(consumer.name), notLinked: notLinked(consumer) }
      all.push(yield* subscription(consumer, of, measure))
    }
    all.push(
      finding(
        catalogue.unreadable.map((table) =>
          problem(table, "notAllowed", "this role may not read this table", { severity: "warning" })
        )
      )
    )
    const problems = all.flatMap((each) => each.problems)
    return {
      isHealthy: problems.every(({ severity }) => severity === "warning"),
      problems,
      waiting: all.reduce((sum, { waiting }) => sum + waiting, 0),
      at: vitals.now
    }
  })
}
