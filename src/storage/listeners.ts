/**
 * Wake-ups: hints that something new was committed.
 *
 * A hint may be lost, come for nothing, or name only some of the new messages: a listener that was woken, or has waited
 * for its poll interval, queries for what is new. A lost wake-up costs time, never a message.
 */
import { Context, Effect, Latch } from "effect"
import type { Duration, Scope } from "effect"

/** A hint for the listeners of a channel. */
export interface Signal {
  /** Of several pending signals of a channel with the same key, only the last is sent. */
  readonly key: string
  /** What depeche_db's listeners expect. Encoded as JSON when it is sent: most signals never are. */
  readonly payload: Readonly<Record<string, string | number | undefined>>
}

/** Waits for wake-ups. */
export interface Listener {
  /** Ends at once if something was signalled since the last wait, else when it is, or when the time is over. */
  readonly wait: (timeout: Duration.Input) => Effect.Effect<void>
}

/**
 * The port of wake-ups: LISTEN and NOTIFY on PostgreSQL, the listeners of the process in memory.
 */
export class Wakeup extends Context.Service<Wakeup, {
  /**
   * Wakes all listeners of a channel, here and in other processes: at once, or after the commit of the transaction that
   * is open. Does not wait for them, and never fails.
   */
  readonly signal: (channel: string, signals: ReadonlyArray<Signal>) => Effect.Effect<void>
  /** A listener that is woken by every signal sent after this has ended, until the scope closes. */
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
            // Everything signalled is committed: a read after this sees it.
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
