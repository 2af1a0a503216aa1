/** What a subscription tells of itself: its metrics, and what its spans have in common. */
import { type Cause, type Context, Duration, Effect, Metric } from "effect"
import * as Telemetry from "../internal/telemetry.ts"

const { metric } = Telemetry

/** The metrics of one subscription. */
export interface Metrics {
  /** The name of the spans of handlers, and the attributes that all of them have. */
  readonly spanName: string
  readonly spanAttributes: Readonly<Record<string, string>>
  /** Has counters begin at zero: what rises from nothing is no increase to those who watch. */
  readonly begin: Effect.Effect<void>
  /** A handler was called with messages, and how that ended; answers the type of its error. */
  readonly called: (
    messages: number,
    cause: Cause.Cause<unknown> | undefined,
    seconds: number,
    context: Context.Context<never>
  ) => string | undefined
  readonly handled: (by: number) => Effect.Effect<void>
  readonly failed: (by: number) => Effect.Effect<void>
  readonly parked: (by: number) => Effect.Effect<void>
  readonly skipped: (by: number) => Effect.Effect<void>
  readonly lag: (messages: number) => Effect.Effect<void>
  /** In milliseconds. */
  readonly age: (milliseconds: number) => Effect.Effect<void>
  readonly halted: (partitions: number) => Effect.Effect<void>
  readonly paused: (partitions: number) => Effect.Effect<void>
  readonly unknownType: (partitions: number) => Effect.Effect<void>
  readonly batchTook: (time: Duration.Duration) => Effect.Effect<void>
}

export const make = (subscription: string, stream: string): Metrics => {
  const group = { [Telemetry.attribute.consumerGroup]: subscription }
  const spanAttributes = { ...Telemetry.attributesOf(stream, "handle", "process"), ...group }
  const attributes = {
    [Telemetry.attribute.system]: Telemetry.system,
    [Telemetry.attribute.destination]: stream,
    ...group
  }
  const counting = (name: string, description: string, unit: "{message}" | "{attempt}" = "{message}") => {
    const counter = Telemetry.counter(name, { description, unit }, attributes)
    return (by: number) => Metric.update(counter, by)
  }
  const measuring = (name: string, description: string, unit: "{message}" | "{partition}" | "s") => {
    const gauge = Telemetry.gauge(name, { description, unit }, attributes)
    return (value: number) => Metric.update(gauge, value)
  }
  const handled = counting(metric.handled, "Messages that were handled and acknowledged")
  const failed = counting(metric.failed, "Calls of handlers that failed", "{attempt}")
  const parked = counting(metric.parked, "Messages that were parked")
  const skipped = counting(metric.skipped, "Messages that were skipped")
  const age = measuring(metric.age, "How long the oldest message that is not acknowledged has been stored", "s")
  const processed = Telemetry.byErrorType(
    (each) => Telemetry.duration(metric.processDuration, "Duration of a call of a handler", each),
    spanAttributes
  )
  const consumed = Telemetry.byErrorType(
    (each) =>
      Telemetry.counter(metric.consumed, {
        description: "Messages that handlers were called with, each time",
        unit: "{message}"
      }, each),
    spanAttributes
  )
  const batchTook = Telemetry.duration(metric.batchDuration, "From reading a batch to its checkpoint", attributes)
  return {
    spanName: `handle ${stream}`,
    spanAttributes,
    begin: Effect.all([handled(0), failed(0), parked(0), skipped(0)], { discard: true }),
    called: (messages, cause, seconds, context) => {
      const errorType = Telemetry.errorTypeOf(cause)
      processed(errorType).updateUnsafe(seconds, context)
      consumed(errorType).updateUnsafe(messages, context)
      return errorType
    },
    handled,
    failed,
    parked,
    skipped,
    lag: measuring(metric.lag, "Messages that are linked and not acknowledged", "{message}"),
    age: (milliseconds) => age(milliseconds / 1000),
    halted: measuring(metric.halted, "Partitions that are halted at a message", "{partition}"),
    paused: measuring(metric.paused, "Partitions that are paused", "{partition}"),
    unknownType: measuring(
      metric.unknownType,
      "Partitions that wait for a process that knows the type of their next message",
      "{partition}"
    ),
    batchTook: (time) => Metric.update(batchTook, Duration.toSeconds(time))
  }
}
