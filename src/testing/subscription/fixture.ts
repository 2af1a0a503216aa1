/** What the tests of subscriptions share. */
import { Array as Arr, Effect, Fiber, Queue, Schedule } from "effect"
import type { Delivery } from "../../Handlers.ts"
import type { Options } from "../../Subscription.ts"
import { Accounts, ClaimsOption, type Deposited, deposits, newStream, type Noted } from "../fixture.ts"

export type Account = Deposited | Noted
export type Handled = Delivery<Account>

let subscriptions = 0

/** A name that no other subscription has, nor any aggregated stream. */
export const newSubscription = (): string => `subscription_${++subscriptions}`

/** A stream of origin streams that begin with `prefix`, each in a partition of its own, and a subscription to it. */
export const subscribe = Effect.fnUntraced(function*(options?: Partial<Options<Account>>) {
  const accounts = yield* Accounts
  const claims = yield* ClaimsOption
  const prefix = newStream()
  const stream = yield* accounts.aggregatedStream({
    name: `subscribed_${subscriptions + 1}`,
    patterns: `${prefix}-%`,
    partitioner: (stored) => Number(stored.stream.slice(stored.stream.lastIndexOf("-") + 1))
  })
  const name = newSubscription()
  const make = (more?: Partial<Options<Account>>) =>
    stream.subscription({ name, retry: Schedule.recurs(0), claims, ...options, ...more })
  return {
    accounts,
    stream,
    make,
    origin: (partition: number) => `${prefix}-${partition}`,
    /** Writes to the stream of a partition, and links it. */
    write: Effect.fnUntraced(function*(partition: number, count: number) {
      const at = yield* accounts.write(`${prefix}-${partition}`, deposits(count))
      yield* stream.projector.runOnce
      return at
    })
  }
})

/** A handler that remembers what it was given, and a way to wait for it. */
export const recorder = () => {
  const handled: Array<Handled> = []
  const queue = Effect.runSync(Queue.unbounded<Handled>())
  const seen = (partition: number) =>
    handled.filter((delivery) => delivery.partition === partition).map(({ position }) => position)
  return {
    handled,
    seen,
    handler: (_: Account, delivery: Handled) =>
      Effect.andThen(Effect.sync(() => handled.push(delivery)), Queue.offer(queue, delivery)),
    take: (count: number) => Queue.takeN(queue, count)
  }
}

export const positions = (count: number, from = 0) => Arr.makeBy(count, (i) => from + i)

/** Runs an effect until something holds, then interrupts it, and waits for its end. */
export const during = Effect.fnUntraced(function*<A, E, R, B, E2, R2>(
  running: Effect.Effect<A, E, R>,
  inside: Effect.Effect<B, E2, R2>
) {
  const fiber = yield* Effect.forkChild(running)
  const result = yield* Effect.raceFirst(inside, Effect.andThen(Fiber.join(fiber), Effect.never))
  yield* Fiber.interrupt(fiber)
  return result
})

/** Soon at first; who waits for long looks less often. */
const looking = Schedule.min([Schedule.exponential("2 millis", 1.2), Schedule.spaced("20 millis")])

export const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(condition, { until: (holds) => holds, schedule: looking })

export const failing =
  (when: (delivery: Handled) => boolean, record: ReturnType<typeof recorder>) =>
  (message: Account, delivery: Handled) => when(delivery) ? Effect.fail("no") : record.handler(message, delivery)
