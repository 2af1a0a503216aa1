/**
 * How long decrypted values may be kept in this process.
 *
 * What is kept is stamped with the moment at which it was begun. It is void once the time is over; and at once, when this process
 * forgets a subject, or notices that another one has.
 */
import { type Clock, Effect } from "effect"

/** When something was begun that holds decrypted values. */
export interface Stamp {
  readonly at: number
  readonly generation: number
}

/** Says what may still be kept. */
export class Freshness {
  /** In milliseconds. */
  private readonly lasting: number
  private readonly clock: Clock.Clock
  private generation = 0

  constructor(clock: Clock.Clock, lasting: number) {
    this.clock = clock
    this.lasting = lasting
  }

  get stamp(): Stamp {
    return { at: this.now, generation: this.generation }
  }

  isFresh({ at, generation }: Stamp): boolean {
    return generation === this.generation && this.now - at < this.lasting
  }

  /** Voids all that was begun before. */
  expire(): void {
    this.generation++
  }

  /** By the clock that is never set back. */
  private get now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }
}

export const make = (lasting: number): Effect.Effect<Freshness> =>
  Effect.clockWith((clock) => Effect.succeed(new Freshness(clock, lasting)))
