/**
 * Wake-ups by LISTEN and NOTIFY, on depeche_db's channels.
 *
 * A NOTIFY inside a writing transaction would take a database-wide lock at commit. So signals are sent after the commit,
 * in statements of their own, one at a time, with a pause of 5 milliseconds after each: signals that arrive meanwhile are
 * sent together. Listeners in this process are woken at once, without the database.
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
          yield* Effect.ignoreCause(
            // A signal need not survive a crash, which no listener does: this commit does not wait for the disk.
            sql`select pg_notify(channel, payload) from unnest(
            ${batch.map(({ channel }) => channel)}::text[], ${
              batch.map(({ payload }) => JSON.stringify(payload))
            }::text[]
          ) signal(channel, payload)
          where (select pg_catalog.set_config('synchronous_commit'::text, 'off'::text, true)) is not null`,
            { log: "Debug", message: "A wake-up was not sent: its listeners find the messages when they poll" }
          )
          yield* Effect.timeoutOption(closing.await, pause)
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

const nameOf = (channel: string, key: string): string => `${channel}\0${key}`
