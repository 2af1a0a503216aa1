/**
 * Wake-ups: hints that something new was committed.
 *
 * A hint may be lost, or come for nothing, or name only some of what is new: who is woken, or has waited long enough,
 * looks for itself, and finds what there is. A lost wake-up costs time, never a message.
 */
import { Context, Effect, Latch } from "effect"
import type { Duration, Scope } from "effect"

/** What is told to those who listen. */
export interface Signal {
  /** Of the signals of a channel that wait to be sent, the last of each key is. */
  readonly key: string
  /** What depeche_db's listeners expect; made JSON text when it is sent, which most are not. */
  readonly payload: Readonly<Record<string, string | number | undefined>>
}

/** Somebody who waits for wake-ups. */
export interface Listener {
  /** Ends at once if something was signalled since the last wait, else when it is, or when the time is over. */
  readonly wait: (timeout: Duration.Input) => Effect.Effect<void>
}

/**
 * The port: what a backend tells by, and listens to. On PostgreSQL these are LISTEN and NOTIFY, in memory the listeners
 * of the process.
 */
export class Wakeup extends Context.Service<Wakeup, {
  /**
   * Tells all who listen, here and in other processes: at once, or, in a transaction, after its commit. It does not wait
   * for them to be told, and never fails.
   */
  readonly signal: (channel: string, signals: ReadonlyArray<Signal>) => Effect.Effect<void>
  /** What is signalled after this has ended, wakes the listener, until the scope closes. */
  readonly listen: (channel: string) => Effect.Effect<Listener, never, Scope.Scope>
}>()("effect-message-store/Wakeup") {}

/**
 * The listeners of one process.
 *
 * @internal
 */
export class Listeners {
  private readonly channels = new Map<string, Set<Latch.Latch>>()

  wake(channel: string): void {
    for (const latch of this.channels.get(channel) ?? []) latch.openUnsafe()
  }

  listen(channel: string): Effect.Effect<Listener, never, Scope.Scope> {
    return Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => this.add(channel)),
        (latch) => Effect.sync(() => this.remove(channel, latch))
      ),
      (latch): Listener => ({
        wait: (timeout) =>
          Effect.andThen(
            Effect.timeoutOption(latch.await, timeout),
            // Whatever was signalled until now has been committed: who looks now, finds it.
            Effect.sync(() => latch.closeUnsafe())
          )
      })
    )
  }

  private add(channel: string): Latch.Latch {
    const latch = Latch.makeUnsafe(false)
    const latches = this.channels.get(channel) ?? new Set()
    this.channels.set(channel, latches.add(latch))
    return latch
  }

  private remove(channel: string, latch: Latch.Latch): void {
    const latches = this.channels.get(channel)
    latches?.delete(latch)
    if (latches?.size === 0) this.channels.delete(channel)
  }
}
