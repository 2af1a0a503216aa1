/**
 * Wake-ups by LISTEN and NOTIFY, on depeche_db's channels.
 *
 * A NOTIFY inside a writing transaction would take a database-wide lock at commit. So signals are sent after the commit,
 * in statements of their own, one at a time, with a pause after each: signals that arrive meanwhile are sent together. Listeners
 * in this process are woken at once, without the database.
 *
 * The pause is of 5 milliseconds while somebody listens, and else of 25. Listeners of this library share a lock of their channel,
 * which a statement that sends could have alone if there were none; Python's, and those of earlier builds, are not seen.
 *
 * One session listens to all channels. When it is lost and opened again, it wakes all listeners.
 */
import { Effect, FiberSet, Latch, Layer, Queue, RcMap } from "effect"
import type { Duration } from "effect"
import { SqlClient } from "effect/sql"
import { Listeners, type Signal, Wakeup } from "../../storage/listeners.ts"
import { perClient } from "./perClient.ts"
import * as Session from "./session.ts"

/** How many signals one statement sends. */
const maximumSignals = 1000

/** Between two statements: a writer in a loop would otherwise send a NOTIFY for each of its writes. */
const pause: Duration.Input = "5 millis"
const pauseUnheard: Duration.Input = "25 millis"

/** How long a closing layer waits until its last signals are sent. */
const lastWait: Duration.Input = "1 second"

interface Notification extends Signal {
  readonly channel: string
}

export const layer = perClient(() =>
  Layer.effect(
    Wakeup,
    Effect.gen(function*() {
      const sql = (yield* SqlClient.SqlClient).withoutTransforms()
      const session = yield* Session.Session
      const sending = yield* FiberSet.make<void>()
      const run = yield* FiberSet.runtime(sending)<never>()
      const closing = Latch.makeUnsafe(false)
      const listeners = new Listeners()
      const waiting = new Map<string, Notification>()
      let isSending = false

      const send = Effect.gen(function*() {
        while (waiting.size > 0) {
          const batch = Array.from(waiting.values()).slice(0, maximumSignals)
          for (const { channel, key } of batch) waiting.delete(nameOf(channel, key))
          let isHeard = true
          const channels = batch.map(({ channel }) => channel)
          // A signal need not survive a crash, which no listener does: this commit does not wait for the disk.
          const sent = sql<{ readonly unheard: boolean }>`
            select (
              select pg_catalog.bool_and(pg_try_advisory_xact_lock(${sql.literal(lockKey("given.channel"))}))
              from pg_catalog.unnest(${Array.from(new Set(channels))}::text[]) given(channel)
            ) as unheard, pg_catalog.count(pg_notify(signal.channel, signal.payload))::int as count
            from unnest(${channels}::text[], ${
            batch.map(({ payload }) => JSON.stringify(payload))
          }::text[]) signal(channel, payload)
            where (select pg_catalog.set_config('synchronous_commit'::text, 'off'::text, true)) is not null`
          yield* Effect.ignoreCause(
            Effect.map(sent, ([row]) => {
              isHeard = row?.unheard !== true
            }),
            { log: "Debug", message: "A wake-up was not sent: its listeners find the messages when they poll" }
          )
          yield* Effect.timeoutOption(closing.await, isHeard ? pause : pauseUnheard)
        }
        isSending = false
      })
      // When the layer closes, pending signals are sent without a pause.
      yield* Effect.addFinalizer(() =>
        Effect.andThen(closing.open, Effect.timeoutOption(FiberSet.awaitEmpty(sending), lastWait))
      )

      const tell = (channel: string, signals: ReadonlyArray<Signal>) =>
        Effect.sync(() => {
          listeners.wake(channel)
          for (const { key, payload } of signals) waiting.set(nameOf(channel, key), { channel, key, payload })
          if (isSending || waiting.size === 0) return
          isSending = true
          run(send)
        })

      const channels = yield* RcMap.make({
        lookup: (channel: string) =>
          session.use((connection) =>
            Effect.gen(function*() {
              const key = lockKey("$1::text")
              yield* Effect.acquireRelease(
                connection.query(`select pg_advisory_lock_shared(${key})`, [channel]),
                () => Effect.ignore(connection.query(`select pg_advisory_unlock_shared(${key})`, [channel]))
              )
              const notifications = yield* connection.listen(channel)
              while (true) {
                listeners.wake(channel) // at first, too: it was not listening when earlier signals were sent
                yield* Queue.take(notifications)
              }
            })
          )
      })

      return Wakeup.of({
        signal: (channel, signals) => signals.length === 0 ? Effect.void : sql.afterCommit(tell(channel, signals)),
        listen: (channel) => Effect.andThen(RcMap.get(channels, channel), listeners.listen(channel))
      })
    })
  ).pipe(Layer.provide(Session.layer))
)

/** The key of the lock that the listeners of a channel share. */
const lockKey = (channel: string): string =>
  `pg_catalog.hashtextextended('effect-message-store listens: '::text operator(pg_catalog.||) ${channel}, 0::bigint)`

const nameOf = (channel: string, key: string): string => `${channel}\0${key}`
