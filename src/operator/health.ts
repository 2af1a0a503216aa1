/** Whether all is well, and if not, why. */
import { DateTime, Duration, Effect, Option, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkWhole, invalid } from "../internal/checks.ts"
import { brief, printable } from "../internal/printable.ts"
import { isForbidden, saidBy } from "../internal/refusal.ts"
import {
  type Catalogue,
  type ObjectsVersion,
  type OperatorStorage,
  type PartitionStatus,
  type ScheduledTotals,
  type Storage,
  subscriptionOf,
  type Vitals
} from "../Storage.ts"
import {
  type NotLinked,
  notLinkedIn,
  projectionStatus,
  type StreamProgress,
  streamStatus,
  subscriptionStatus
} from "./consumers.ts"
import { isNewer, isOutdated, type Opened, type OperatorError } from "./opened.ts"
import { ifLong, type Problem, problem, type ProblemKind, toText } from "./problem.ts"

/** What is out of order beyond these, counts. */
export interface HealthBounds {
  /** How many messages a subscription may be behind. Default: as many as there are. */
  readonly lag?: number | undefined
  /** How long a message may wait to be linked, handled, or moved into its stream when it is due. Default 5 minutes. */
  readonly age?: Duration.Input | undefined
  /** How long ago a projector may have looked last. Default 1 minute; they tell it every 10 seconds. */
  readonly projector?: Duration.Input | undefined
  /** How long a claim may be without progress while messages wait. Default 5 minutes. */
  readonly progress?: Duration.Input | undefined
  /** How many parked messages a subscription may have. Default 0. */
  readonly parked?: number | undefined
  /** How long a transaction may be open. Default 15 minutes. */
  readonly transaction?: Duration.Input | undefined
  /** How many of the sessions that the server has may be open: a part from 0 to 1. Default 0.9. */
  readonly sessions?: number | undefined
}

/** How a store is. */
export interface Health {
  /** Whether nothing is wrong but what is a warning. */
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

/** So many partitions of a subscription are looked at, of those with something to be handled; and told, of each kind. */
const mostPartitions = 1000
const mostTold = 3

interface Bounds {
  readonly lag: number
  readonly age: Duration.Duration
  readonly projector: Duration.Duration
  readonly progress: Duration.Duration
  readonly parked: number
  readonly transaction: Duration.Duration
  readonly sessions: number
}

const checkDuration = (argument: string, given: Duration.Input | undefined, otherwise: Duration.Input) => {
  const duration = Option.getOrUndefined(Duration.fromInput(given ?? otherwise))
  return duration === undefined || Duration.isNegative(duration)
    ? invalid(argument, "must be a duration, 0 or more")
    : Result.succeed(duration)
}

const checkBounds = (given: HealthBounds): Result.Result<Bounds, InvalidArgumentError> => {
  const { lag = Number.MAX_SAFE_INTEGER, parked = 0, sessions = 0.9 } = given
  return Result.all({
    lag: checkWhole("lag", lag, 0),
    age: checkDuration("age", given.age, "5 minutes"),
    projector: checkDuration("projector", given.projector, "1 minute"),
    progress: checkDuration("progress", given.progress, "5 minutes"),
    parked: checkWhole("parked", parked, 0),
    transaction: checkDuration("transaction", given.transaction, "15 minutes"),
    sessions: sessions >= 0 && sessions <= 1 ? Result.succeed(sessions) : invalid("sessions", "must be from 0 to 1")
  })
}

export const make = (
  storage: Storage["Service"],
  operator: OperatorStorage,
  opened: Opened,
  store: string,
  bounded: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
) => {
  const ofStream = (
    of: string,
    progress: StreamProgress,
    { age, projector }: Bounds,
    now: DateTime.Utc
  ): ReadonlyArray<Problem> => {
    const { scannedAt, waiting, waitingFor } = progress
    const silent = scannedAt && DateTime.distance(scannedAt, now)
    if (silent === undefined) {
      return waiting > 0 ? [problem(of, "projectorDown", `no projector has run yet: ${waiting} messages wait`)] : []
    }
    if (Duration.isGreaterThan(silent, projector)) {
      const message = `no projector has looked for ${toText(silent)}: ${waiting} messages wait`
      return [problem(of, "projectorDown", message, { since: scannedAt })]
    }
    return waitingFor === undefined ? [] : ifLong(waitingFor, age, (severity) => {
      const message = `${waiting} messages wait to be linked, the first for ${toText(waitingFor)}`
      return problem(of, "projectorBehind", message, { severity })
    })
  }

  const ofPartition = (
    of: string,
    each: PartitionStatus,
    bounds: Bounds,
    now: DateTime.Utc
  ): ReadonlyArray<Problem> => {
    const { acknowledgedAt, age, checkpoint, claimedAt, claimedBy, halted, partition, paused, position, unknownType } =
      each
    if (halted !== undefined) {
      const why = printable(`${halted.error.tag}: ${halted.error.message}`).slice(0, 200)
      const message = `is halted at message ${halted.messageId}, position ${halted.position}: ${why}`
      return [problem(of, "halted", message, { partition, since: halted.since })]
    }
    if (unknownType !== undefined) {
      const message = `waits for a process that knows ${brief(unknownType.type)}, at position ${unknownType.position}`
      const isLong = Duration.isGreaterThan(DateTime.distance(unknownType.since, now), bounds.age)
      const severity = isLong ? "error" : "warning"
      return [problem(of, "unknownType", message, { partition, since: unknownType.since, severity })]
    }
    if (paused !== undefined || age === undefined) return [] // told of the subscription as a whole
    const behind = `${position - checkpoint} messages wait, the first for ${toText(age)}`
    if (claimedBy === undefined) {
      const message = `nobody has claimed it: ${behind}`
      return ifLong(age, bounds.age, (severity) => problem(of, "unclaimed", message, { partition, severity }))
    }
    if (!Duration.isGreaterThan(age, bounds.age)) return []
    const last = [claimedAt, acknowledgedAt].reduce(
      (latest, time) => time === undefined ? latest : latest === undefined ? time : DateTime.max(latest, time),
      undefined
    )
    return last !== undefined && Duration.isGreaterThan(DateTime.distance(last, now), bounds.progress)
      ? [problem(of, "stuck", `${printable(claimedBy)} has it, and has acknowledged nothing since: ${behind}`, {
        partition,
        since: last
      })]
      : [problem(of, "late", behind, { partition })]
  }

  const ofSubscription = Effect.fnUntraced(function*(
    catalogue: Catalogue,
    consumer: Catalogue["subscriptions"][number],
    idle: ReadonlySet<string>,
    notLinked: (consumer: Catalogue["subscriptions"][number]) => Effect.Effect<NotLinked, OperatorError>,
    counted: (messages: number) => void,
    bounds: Bounds,
    now: DateTime.Utc
  ): Effect.fn.Return<ReadonlyArray<Problem>, OperatorError> {
    const of = consumer.name
    const { totals } = yield* subscriptionStatus(operator, notLinked)(catalogue, consumer)
    if (totals === undefined) return [] // outdated
    if (totals.isVoid) {
      return [problem(of, "rebuilt", "its aggregated stream was rebuilt: reset it")]
    }
    if (!idle.has(of)) counted(totals.lag - (yield* notLinked(consumer)).messages)
    const all = yield* operator.partitions(consumer, { after: undefined, limit: mostPartitions, onlyUnfinished: true })
    const partitions = all.flatMap((each) => ofPartition(of, each, bounds, now))
      // A version that readers do not see may be far behind.
      .filter(({ kind }) => !idle.has(of) || (kind !== "late" && kind !== "unclaimed"))
    const told = new Map<ProblemKind, number>()
    const paused = all.filter((each) => each.paused !== undefined)
    return [
      ...totals.paused !== undefined || paused.length > 0
        ? [problem(
          of,
          "paused",
          `${totals.paused === undefined ? `${paused.length} partitions are` : "is"} paused${
            printable(reasonOf(totals.paused ?? paused[0]?.paused))
          }: ${totals.lag} messages wait`,
          { severity: "warning", since: (totals.paused ?? paused[0]?.paused)?.since }
        )]
        : [],
      ...totals.parked > bounds.parked
        ? [problem(of, "parked", `${totals.parked} messages are parked, of which ${totals.requeued} are requeued`)]
        : [],
      ...totals.lag > bounds.lag && !idle.has(of)
        ? [problem(of, "lagging", `${totals.lag} messages are not acknowledged`)]
        : [],
      ...partitions.filter(({ kind }) => {
        told.set(kind, (told.get(kind) ?? 0) + 1)
        return (told.get(kind) ?? 0) <= mostTold
      }),
      ...Array.from(told).flatMap(([kind, count]) =>
        count > mostTold ? [problem(of, kind, `the same of ${count - mostTold} more partitions`)] : []
      )
    ]
  })

  const ofDatabase = (vitals: Vitals, bounds: Bounds): ReadonlyArray<Problem> => {
    const { now, sessions, transactions } = vitals
    return [
      ...transactions.map(({ name, pid, since, state }) =>
        problem(
          "database",
          "transaction",
          `${
            pid === undefined ?
              `the prepared transaction "${printable(name)}"` :
              `process ${pid} (${printable(name) || "no name"}, ${state})`
          } has had a transaction open for ${toText(DateTime.distance(since, now))}`,
          { since }
        )
      ),
      ...sessions !== undefined && sessions.open > sessions.maximum * bounds.sessions
        ? [problem("database", "sessions", `${sessions.open} of ${sessions.maximum} sessions are open`)]
        : []
    ]
  }

  const ofSchedule = ({ overdue, refused }: ScheduledTotals, { age }: Bounds): ReadonlyArray<Problem> => [
    ...overdue !== undefined && Duration.isGreaterThan(overdue, age)
      ? [problem(store, "schedulerDown", `a scheduled message is due for ${toText(overdue)}`)]
      : [],
    ...refused > 0 ? [problem(store, "refused", `${refused} scheduled messages cannot be written`)] : []
  ]

  const ofTags = Effect.map(storage.declaredTags, ({ tags }): ReadonlyArray<Problem> => {
    const names = Array.from(new Set(tags.filter(({ isComplete }) => !isComplete).map(({ tag }) => tag)))
    const message = `messages that were stored before are not found by ${
      printable(names.join(", "))
    } yet: run its tagging`
    return names.length === 0 ? [] : [problem(store, "untagged", message, { severity: "warning" })]
  })

  const ofVersions = (catalogue: Catalogue): ReadonlyArray<Problem> =>
    [
      { of: store, objects: catalogue.store },
      ...catalogue.aggregatedStreams.map(({ definition, objects }) => ({ of: definition.name, objects })),
      ...[...catalogue.subscriptions, ...catalogue.projections].map(({ name, objects }) => ({ of: name, objects }))
    ].flatMap(({ objects, of }): ReadonlyArray<Problem> => {
      const versions = `version ${objects.made}, and this build knows ${objects.known}`
      if (isOutdated(objects)) {
        return [problem(of, "outdated", `its database objects are of ${versions}: migrate`)]
      }
      return isNewer(objects)
        ? [problem(of, "newer", `its database objects are of ${versions}`, { severity: "warning" })]
        : []
    })

  /** What the role may not look at is told as a problem. */
  const allowed = <E>(of: string, effect: Effect.Effect<ReadonlyArray<Problem>, E>) =>
    Effect.catchIf(
      bounded(effect),
      isForbidden,
      (error): Effect.Effect<ReadonlyArray<Problem>> =>
        Effect.succeed([problem(of, "notAllowed", saidBy(error as SqlError), { severity: "warning" })])
    )

  return Effect.fnUntraced(function*(given: HealthBounds = {}): Effect.fn.Return<Health, OperatorError> {
    const bounds = yield* Effect.fromResult(checkBounds(given))
    const { catalogue, vitals } = yield* bounded(Effect.all({
      catalogue: operator.catalogue,
      vitals: operator.vitals(Duration.toMillis(bounds.transaction))
    }))
    const { now } = vitals
    const notLinked = yield* notLinkedIn(opened, catalogue)
    let waiting = 0
    const count = (messages: number) => {
      waiting += messages
    }
    /** Subscriptions of versions that readers do not see. */
    const idle = new Set<string>()
    const versionsOf = (projection: Catalogue["projections"][number]) =>
      Effect.map(projectionStatus(opened)(catalogue, projection), ({ name, versions }) => {
        for (const { state, version } of versions) if (state !== "promoted") idle.add(subscriptionOf(name, version))
        return []
      })
    const isCurrent = ({ objects }: { readonly objects: ObjectsVersion }) => !isOutdated(objects)
    const problems = [
      ...ofVersions(catalogue),
      ...ofDatabase(vitals, bounds),
      ...yield* allowed(store, Effect.map(operator.scheduledTotals, (totals) => ofSchedule(totals, bounds))),
      ...yield* allowed(store, ofTags)
    ]
    for (const stream of catalogue.aggregatedStreams.filter(isCurrent)) {
      const of = stream.definition.name
      const status = streamStatus(opened)(stream)
      problems.push(
        ...yield* allowed(
          of,
          Effect.map(status, ({ progress }) => {
            count(progress?.waiting ?? 0)
            return progress === undefined ? [] : ofStream(of, progress, bounds, now)
          })
        )
      )
    }
    for (const projection of catalogue.projections.filter(isCurrent)) {
      problems.push(...yield* allowed(projection.name, versionsOf(projection)))
    }
    for (const consumer of catalogue.subscriptions.filter(isCurrent)) {
      problems.push(
        ...yield* allowed(consumer.name, ofSubscription(catalogue, consumer, idle, notLinked, count, bounds, now))
      )
    }
    for (const table of catalogue.unreadable) {
      problems.push(problem(table, "notAllowed", "this role may not read this table", { severity: "warning" }))
    }
    return { isHealthy: problems.every(({ severity }) => severity === "warning"), problems, waiting, at: now }
  })
}

const reasonOf = (pause: PartitionStatus["paused"]): string =>
  pause === undefined || (pause.reason === undefined && pause.by === undefined)
    ? ""
    : ` (${
      [pause.reason, pause.by === undefined ? undefined : `by ${pause.by}`].filter((part) => part !== undefined).join(
        ", "
      )
    })`
