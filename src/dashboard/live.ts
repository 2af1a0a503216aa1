/**
 * What happens, for all who look on: one poll looks at the store while somebody does, whatever their number is, and keeps what
 * the charts show of the last minutes. It takes no more than a part of a connection's time: the longer a look takes, the longer
 * it waits before the next one.
 */
import { Cause, Clock, Duration, Effect, Latch, PubSub, Semaphore, Stream } from "effect"
import type { Scope } from "effect"
import * as Moment from "../internal/moment.ts"
import type {
  AggregatedStreamStatus,
  Health,
  OperatorError,
  OperatorService,
  Overview,
  Page,
  SubscriptionStatus
} from "../Operator.ts"

/** How the store is. */
export interface Snapshot {
  readonly overview: Overview
  readonly health: Health
  readonly subscriptions: ReadonlyArray<SubscriptionStatus>
  readonly aggregatedStreams: ReadonlyArray<AggregatedStreamStatus>
}

/** What the charts show of one moment. */
export interface Sample {
  /** In milliseconds, by the clock of the database. */
  readonly at: number
  /** Messages a second since the sample before. */
  readonly rate: number | undefined
  /** By subscription: messages that wait, and milliseconds that the first one has waited. */
  readonly lag: ReadonlyArray<readonly [name: string, lag: number, age: number]>
}

/** Tells whoever looks on. */
export type Change =
  | { readonly _tag: "Sampled"; readonly sample: Sample; readonly state: string }
  | { readonly _tag: "Failed" }

/** So many subscriptions and aggregated streams are looked at by each poll. */
const mostWatched = 100

/** So many samples are kept. */
const mostSamples = 300

/** How long it goes on when nobody looks any more. */
const lingering = Duration.toMillis("1 minute")

/** How long a page may show what was seen before, in milliseconds. */
const fresh = 1000

/** It waits this much longer than a look took: a look takes a quarter of the time at most. */
const share = 3

/** How long it rests after a look that failed, at most: it may have waited long for a database that is back soon. */
const longestRest = Duration.seconds(30)

export interface Live {
  /** How the store is, as of a second ago at most. */
  readonly snapshot: Effect.Effect<Snapshot, OperatorError>
  /** Somebody has changed something: what was seen before is shown no more. */
  readonly forget: Effect.Effect<void>
  /** What was seen last, if anything was. */
  readonly last: Effect.Effect<Snapshot | undefined>
  readonly samples: Effect.Effect<ReadonlyArray<Sample>>
  /** What is seen from now on, while somebody reads it. */
  readonly changes: Stream.Stream<Change>
}

const lagOf = (subscriptions: ReadonlyArray<SubscriptionStatus>): Sample["lag"] =>
  subscriptions.flatMap(({ name, totals }) =>
    totals === undefined
      ? []
      : [[name, totals.lag, totals.age === undefined ? 0 : Math.round(Duration.toMillis(totals.age))] as const]
  )

/** What is different when something that pages show is different. */
const stateOf = ({ aggregatedStreams, health, overview, subscriptions }: Snapshot): string =>
  JSON.stringify([
    overview.vitals.lastPosition,
    overview.scheduled.waiting,
    overview.scheduled.refused,
    health.problems.map(({ kind, of, partition }) => [kind, of, partition]),
    aggregatedStreams.map(({ name, progress }) => [name, progress?.messages, progress?.waiting]),
    subscriptions.map(({ name, totals }) => [
      name,
      totals?.lag,
      totals?.claimed,
      totals?.parked,
      totals?.requeued,
      totals?.paused?.since,
      totals?.pausedPartitions,
      totals?.halted,
      totals?.isVoid
    ]),
    overview.projections
  ])

/** What the role may not look at is told by the health. */
const allowed = <A>(list: Effect.Effect<Page<A>, OperatorError>): Effect.Effect<ReadonlyArray<A>, OperatorError> =>
  list.pipe(
    Effect.map(({ items }) => items),
    Effect.catch((error) =>
      error._tag === "SqlError" && error.reason._tag === "AuthorizationError" ? Effect.succeed([]) : Effect.fail(error)
    )
  )

export const make = Effect.fnUntraced(function*(
  operator: OperatorService,
  pollInterval: Duration.Duration
): Effect.fn.Return<Live, never, Scope.Scope> {
  const one = yield* Semaphore.make(1)
  const hub = yield* PubSub.sliding<Change>({ capacity: 16 })
  /** Open while there is something to be done for whoever looks. */
  const looking = yield* Latch.make()
  const samples: Array<Sample> = []
  let last: { readonly snapshot: Snapshot; readonly at: Moment.Moment } | undefined
  let failed: { readonly error: OperatorError; readonly at: Moment.Moment } | undefined
  let position: { readonly at: number; readonly last: number } | undefined
  /** How often something was changed here. */
  let changed = 0
  let viewers = 0
  let until = 0

  const note = (snapshot: Snapshot): Sample => {
    const { lastPosition, now } = snapshot.overview.vitals
    const at = now.epochMilliseconds
    const seconds = position === undefined ? 0 : (at - position.at) / 1000
    // After a pause the mean of it would be no rate of now.
    const rate = position !== undefined && seconds > 0 && seconds < 60
      ? Math.max(0, lastPosition - position.last) / seconds
      : undefined
    const sample: Sample = { at, rate, lag: lagOf(snapshot.subscriptions) }
    position = { at, last: lastPosition }
    samples.push(sample)
    if (samples.length > mostSamples) samples.shift()
    return sample
  }

  const look = Effect.gen(function*() {
    const before = last
    if (before !== undefined && (yield* Moment.since(before.at)) < fresh) return before.snapshot
    // Whoever has waited for a look that failed does not wait for another one.
    if (failed !== undefined && (yield* Moment.since(failed.at)) < fresh) return yield* failed.error
    const seen = changed
    const overview = yield* operator.overview
    const health = yield* operator.health()
    const subscriptions = yield* allowed(operator.subscriptions({ limit: mostWatched }))
    const aggregatedStreams = yield* allowed(operator.aggregatedStreams({ limit: mostWatched }))
    const snapshot: Snapshot = { overview, health, subscriptions, aggregatedStreams }
    // What was changed meanwhile may be missing in it.
    if (seen === changed) last = { snapshot, at: yield* Moment.now }
    yield* PubSub.publish(hub, { _tag: "Sampled", sample: note(snapshot), state: stateOf(snapshot) })
    return snapshot
  }).pipe(
    Effect.tapError((error) =>
      failed?.error === error ? Effect.void : Effect.map(Moment.now, (at) => {
        failed = { error, at }
      })
    ),
    one.withPermit
  )

  const wake = Effect.andThen(
    Effect.map(Clock.currentTimeMillis, (now) => {
      until = now + lingering
    }),
    looking.open
  )

  const polled = Effect.gen(function*() {
    yield* looking.await
    const [took, rest] = yield* Effect.timed(Effect.matchCauseEffect(look, {
      onSuccess: () => Effect.succeed(Duration.infinity),
      onFailure: (cause) =>
        Cause.hasInterrupts(cause)
          ? Effect.failCause(cause)
          : Effect.as(PubSub.publish(hub, { _tag: "Failed" }), longestRest)
    }))
    if (viewers === 0 && (yield* Clock.currentTimeMillis) > until) yield* looking.close
    yield* Effect.sleep(Duration.max(pollInterval, Duration.min(Duration.times(took, share), rest)))
  })
  yield* Effect.forkScoped(Effect.forever(polled))

  return {
    snapshot: Effect.andThen(wake, look),
    forget: Effect.sync(() => {
      last = failed = undefined
      changed++
    }),
    last: Effect.sync(() => last?.snapshot),
    samples: Effect.sync(() => samples.slice()),
    changes: Stream.unwrap(
      Effect.gen(function*() {
        yield* Effect.acquireRelease(
          Effect.sync(() => viewers++),
          () => Effect.sync(() => viewers--)
        )
        yield* wake
        const subscription = yield* PubSub.subscribe(hub)
        return Stream.fromSubscription(subscription)
      })
    )
  }
})
