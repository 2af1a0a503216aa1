/** Asks a consumer to stop: it finishes the messages in hand, and begins no others. */
import { Effect, Latch } from "effect"

export class Shutdown {
  private readonly latch = Latch.makeUnsafe(false)
  private requested = false

  /** Whether nothing more should be begun. */
  get isRequested(): boolean {
    return this.requested
  }

  /** Ends when it is requested. */
  readonly awaitRequest: Effect.Effect<void> = this.latch.await

  readonly request: Effect.Effect<void> = Effect.sync(() => {
    this.requested = true
    this.latch.openUnsafe()
  })
}
