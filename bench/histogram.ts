/** How long things took, in milliseconds, in little memory however many there are. */
import { Schema } from "effect"

export const Latency = Schema.Struct({
  count: Schema.Int,
  p50: Schema.Finite,
  p99: Schema.Finite,
  p999: Schema.Finite,
  max: Schema.Finite
})

export type Latency = typeof Latency.Type

/** Each bound is 2 % above the one before, from 0.01 milliseconds on. */
const growth = 1.02
const smallest = 0.01

export class Histogram {
  private readonly counts: Array<number> = []
  private count = 0
  private max = 0

  add(milliseconds: number): void {
    const bucket = Math.max(0, Math.ceil(Math.log(milliseconds / smallest) / Math.log(growth)))
    this.counts[bucket] = (this.counts[bucket] ?? 0) + 1
    this.count++
    this.max = Math.max(this.max, milliseconds)
  }

  /** The bound of the bucket in which that share of all is; 2 % too high at most. */
  private percentile(share: number): number {
    let left = share * this.count
    for (const [bucket, count] of this.counts.entries()) {
      left -= count ?? 0 // buckets have holes
      if (left <= 0) return Math.min(this.max, smallest * growth ** bucket)
    }
    return this.max
  }

  get latency(): Latency {
    const { count, max } = this
    return { count, p50: this.percentile(0.5), p99: this.percentile(0.99), p999: this.percentile(0.999), max }
  }
}
