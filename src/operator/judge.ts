/** What is wrong with the parts of a store, given what was seen of them. */
import { DateTime, Duration } from "effect"
import { brief, printable } from "../internal/printable.ts"
import type { Catalogue, PartitionStatus, ScheduledTotals, SubscriptionTotals, Vitals } from "../Storage.ts"
import type { Bounds } from "./bounds.ts"
import type { StreamProgress } from "./consumers.ts"
import { isNewer, isOutdated } from "./opened.ts"
import { ifLong, type Problem, problem, type ProblemKind, toText } from "./problem.ts"

/** What parts are judged by. */
export interface Measure {
  readonly bounds: Bounds
  /** By the clock of the database. */
  readonly now: DateTime.Utc
}

type Problems = ReadonlyArray<Problem>

export const ofVersions = (store: string, catalogue: Catalogue): Problems =>
  [
    { of: store, objects: catalogue.store },
    ...catalogue.aggregatedStreams.map(({ definition, objects }) => ({ of: definition.name, objects })),
    ...[...catalogue.subscriptions, ...catalogue.projections].map(({ name, objects }) => ({ of: name, objects }))
  ].flatMap(({ objects, of }): Problems => {
    const versions = `version ${objects.made}, and this build knows ${objects.known}`
    if (isOutdated(objects)) {
      return [problem(of, "outdated", `its database objects are of ${versions}: migrate`)]
    }
    return isNewer(objects)
      ? [problem(of, "newer", `its database objects are of ${versions}`, { severity: "warning" })]
      : []
  })

export const ofDatabase = ({ now, sessions, transactions }: Vitals, { bounds }: Measure): Problems => [
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

export const ofSchedule = (store: string, { overdue, refused }: ScheduledTotals, { bounds }: Measure): Problems => [
  ...overdue !== undefined && Duration.isGreaterThan(overdue, bounds.age)
    ? [problem(store, "schedulerDown", `a scheduled message is due for ${toText(overdue)}`)]
    : [],
  ...refused > 0 ? [problem(store, "refused", `${refused} scheduled messages cannot be written`)] : []
]

export const ofTags = (store: string, incomplete: ReadonlyArray<string>): Problems => {
  const names = printable(incomplete.join(", "))
  const message = `messages that were stored before are not found by ${names} yet: run its tagging`
  return incomplete.length === 0 ? [] : [problem(store, "untagged", message, { severity: "warning" })]
}

/** A projector that is down while nothing waits may have been stopped on purpose: that is a warning. */
export const ofStream = (
  of: string,
  { scannedAt, waiting, waitingFor }: StreamProgress,
  { bounds, now }: Measure
): Problems => {
  const silent = scannedAt && DateTime.distance(scannedAt, now)
  if (silent === undefined) {
    return waiting > 0 ? [problem(of, "projectorDown", `no projector has run yet: ${waiting} messages wait`)] : []
  }
  if (Duration.isGreaterThan(silent, bounds.projector)) {
    const message = `no projector has looked for ${toText(silent)}: ${waiting} messages wait`
    const severity = waiting > 0 ? "error" : "warning"
    return [problem(of, "projectorDown", message, { severity, since: scannedAt })]
  }
  return waitingFor === undefined ? [] : ifLong(waitingFor, bounds.age, (severity) => {
    const message = `${waiting} messages wait to be linked, the first for ${toText(waitingFor)}`
    return problem(of, "projectorBehind", message, { severity })
  })
}

const ofPartition = (of: string, each: PartitionStatus, { bounds, now }: Measure): Problems => {
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

/** What was seen of a subscription. */
interface SeenSubscription {
  readonly name: string
  readonly totals: SubscriptionTotals
  /** Messages that are not acknowledged, linked or not. */
  readonly lag: number
  /** Those with something to be handled. */
  readonly partitions: ReadonlyArray<PartitionStatus>
  /** Whether it is of a version that readers do not see: that may be far behind. */
  readonly isIdle: boolean
}

/** So many partitions are told of, of each kind of problem. */
const mostTold = 3

export const ofSubscription = (
  { isIdle, lag, name, partitions, totals }: SeenSubscription,
  measure: Measure
): Problems => {
  const { bounds } = measure
  const ofPartitions = partitions.flatMap((each) => ofPartition(name, each, measure))
    .filter(({ kind }) => !isIdle || (kind !== "late" && kind !== "unclaimed"))
  const told = new Map<ProblemKind, number>()
  const paused = partitions.filter((each) => each.paused !== undefined)
  const pause = totals.paused ?? paused[0]?.paused
  return [
    ...pause === undefined ? [] : [problem(
      name,
      "paused",
      `${totals.paused === undefined ? `${paused.length} partitions are` : "is"} paused${
        printable(reasonOf(pause))
      }: ${lag} messages wait`,
      { severity: "warning", since: pause.since }
    )],
    ...totals.parked > bounds.parked
      ? [problem(name, "parked", `${totals.parked} messages are parked, of which ${totals.requeued} are requeued`)]
      : [],
    ...lag > bounds.lag && !isIdle ? [problem(name, "lagging", `${lag} messages are not acknowledged`)] : [],
    ...ofPartitions.filter(({ kind }) => {
      told.set(kind, (told.get(kind) ?? 0) + 1)
      return (told.get(kind) ?? 0) <= mostTold
    }),
    ...Array.from(told).flatMap(([kind, count]) =>
      count > mostTold ? [problem(name, kind, `the same of ${count - mostTold} more partitions`)] : []
    )
  ]
}

const reasonOf = ({ by, reason }: NonNullable<PartitionStatus["paused"]>): string => {
  const parts = [reason, by === undefined ? undefined : `by ${by}`].filter((part) => part !== undefined)
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}
