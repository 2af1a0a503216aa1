/**
 * Wake-ups by LISTEN and NOTIFY, on depeche_db's channels.
 *
 * A NOTIFY inside of a writing transaction would take a lock of the whole database at its commit. So signals are sent
 * after commit, in statements of their own, one at a time, with a pause of 5 milliseconds behind each: what comes
 * meanwhile gathers, and leaves together. Listeners of this process need no database, and do not wait.
 *
 * All channels are listened to on one session; when it was lost and is back, all listeners are woken.
 */
import { Effect, FiberSet, Latch, Layer, Queue, RcMap } from "effect"
import type { Duration } from "effect"
import { SqlClient } from "effect/sql"
import { Listeners, type Signal, Wakeup } from "../../storage/listeners.ts"
import { perClient } from "./perClient.ts"
import * as Session from "./session.ts"

/** Of one statement. */
const maximumSignals = 1000

/** Writers in a loop would otherwise pay for a NOTIFY each. */
const pause: Duration.Input = "5 millis"

/** How long a layer that closes waits for its last signals to be sent. */
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
            sql`select pg_notify(channel, payload) from unnest(
            ${batch.map(({ channel }) => channel)}::text[], ${
              batch.map(({ payload }) => JSON.stringify(payload))
            }::text[]
          ) signal(channel, payload)`,
            { log: "Debug", message: "A wake-up was not sent: who waits for it looks for itself later" }
          )
          yield* Effect.timeoutOption(closing.await, pause)
        }
        isSending = false
      })
      // What waits when the layer closes leaves at once.
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
                listeners.wake(channel) // the first time too: what was signalled before, nobody has told us of
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
