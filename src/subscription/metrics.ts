/** The metrics of subscriptions, by the name of the subscription. */
import { type Duration, type Effect, Metric } from "effect"

const handledTotal = Metric.counter("effect_message_store_handled", { description: "Messages handled" })
const failedTotal = Metric.counter("effect_message_store_failed", { description: "Calls of handlers that failed" })
const parkedTotal = Metric.counter("effect_message_store_parked", { description: "Messages parked" })
const skippedTotal = Metric.counter("effect_message_store_skipped", { description: "Messages skipped" })
const lagGauge = Metric.gauge("effect_message_store_lag", { description: "Messages linked and not acknowledged" })
const ageGauge = Metric.gauge("effect_message_store_age", {
  description: "Milliseconds since the oldest message that is linked and not acknowledged was stored"
})
const haltedGauge = Metric.gauge("effect_message_store_halted", {
  description: "Partitions that are halted at a message"
})
const pausedGauge = Metric.gauge("effect_message_store_paused", { description: "Partitions that are paused" })
const unknownTypeGauge = Metric.gauge("effect_message_store_unknown_type", {
  description: "Partitions that wait for a process that knows the type of their next message"
})
const batchTimer = Metric.timer("effect_message_store_batch_time", {
  description: "From reading a batch to its checkpoint"
})

/** The metrics of one subscription. */
export interface Metrics {
  readonly handled: (by: number) => Effect.Effect<void>
  readonly failed: (by: number) => Effect.Effect<void>
  readonly parked: (by: number) => Effect.Effect<void>
  readonly skipped: (by: number) => Effect.Effect<void>
  readonly lag: (messages: number) => Effect.Effect<void>
  readonly age: (milliseconds: number) => Effect.Effect<void>
  readonly halted: (partitions: number) => Effect.Effect<void>
  readonly paused: (partitions: number) => Effect.Effect<void>
  readonly unknownType: (partitions: number) => Effect.Effect<void>
  readonly batchTook: (time: Duration.Duration) => Effect.Effect<void>
}

export const make = (subscription: string): Metrics => {
  const update = <Input, State>(metric: Metric.Metric<Input, State>) => {
    const attributed = Metric.withAttributes(metric, { subscription })
    return (input: Input) => Metric.update(attributed, input)
  }
  return {
    handled: update(handledTotal),
    failed: update(failedTotal),
    parked: update(parkedTotal),
    skipped: update(skippedTotal),
    lag: update(lagGauge),
    age: update(ageGauge),
    halted: update(haltedGauge),
    paused: update(pausedGauge),
    unknownType: update(unknownTypeGauge),
    batchTook: update(batchTimer)
  }
}
