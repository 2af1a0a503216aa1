/**
 * The names by which stores tell what they do: those of OpenTelemetry's semantic conventions for messaging, 1.43
 * (https://opentelemetry.io/docs/specs/semconv/messaging/). `docs/telemetry.md` lists them all.
 *
 * To the conventions a store is a destination, and so is an aggregated stream; a subscription is a consumer group. Names of
 * streams are no destinations: there are too many of them for a metric. They are attributes of spans.
 */
import { Cause, Clock, Context, Effect, type Fiber, Metric, Predicate, Tracer } from "effect"
import { isSqlError } from "effect/sql/SqlError"
import { printable } from "./printable.ts"

/** What the conventions call the messaging system; attributes that they do not have begin with `messaging.` and this. */
export const system = "effect_message_store"

const own = `messaging.${system}.`

/** The names of attributes. */
export const attribute = {
  system: "messaging.system",
  operation: "messaging.operation.name",
  operationType: "messaging.operation.type",
  destination: "messaging.destination.name",
  partition: "messaging.destination.partition.id",
  consumerGroup: "messaging.consumer.group.name",
  messageId: "messaging.message.id",
  conversation: "messaging.message.conversation_id",
  messageCount: "messaging.batch.message_count",
  errorType: "error.type",
  stream: `${own}stream`,
  type: `${own}message.type`,
  position: `${own}message.position`,
  attempt: `${own}message.attempt`,
  decisions: `${own}decisions`,
  questions: `${own}questions`
} as const

/** The names of metrics. */
export const metric = {
  operationDuration: "messaging.client.operation.duration",
  sent: "messaging.client.sent.messages",
  consumed: "messaging.client.consumed.messages",
  processDuration: "messaging.process.duration",
  handled: `${system}.handled.messages`,
  failed: `${system}.failed.attempts`,
  parked: `${system}.parked.messages`,
  skipped: `${system}.skipped.messages`,
  lag: `${system}.lag`,
  age: `${system}.age`,
  halted: `${system}.halted.partitions`,
  paused: `${system}.paused.partitions`,
  unknownType: `${system}.unknown_type.partitions`,
  batchDuration: `${system}.batch.duration`,
  linked: `${system}.linked.messages`,
  snapshots: `${system}.snapshots`
} as const

/** What a metric has beside its name. Its unit is one of UCUM, as exporters expect it. */
interface Described {
  readonly description: string
  readonly unit: "s" | "{message}" | "{attempt}" | "{partition}" | "{snapshot}"
}

type Attributes = Readonly<Record<string, string>>

const withUnit = ({ description, unit }: Described, attributes: Attributes) => ({
  description,
  attributes: { ...attributes, unit }
})

/** Of a metric with attributes: to update it is a look into a map, where `Metric.withAttributes` would copy the context. */
export const counter = (name: string, described: Described, attributes: Attributes): Metric.Counter<number> =>
  Metric.counter(name, { ...withUnit(described, attributes), incremental: true })

export const gauge = (name: string, described: Described, attributes: Attributes): Metric.Gauge<number> =>
  Metric.gauge(name, withUnit(described, attributes))

/** In seconds, with the boundaries that the conventions ask for. */
export const duration = (name: string, description: string, attributes: Attributes): Metric.Histogram<number> =>
  Metric.histogram(name, {
    ...withUnit({ description, unit: "s" }, attributes),
    boundaries: [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
  })

/** How many types of errors are told apart, so that metrics stay few. */
const maximumErrorTypes = 50

/** A metric for each type of error that an operation ends with, and one for those that succeed. */
export const byErrorType = <Input, State>(
  make: (attributes: Attributes) => Metric.Metric<Input, State>,
  attributes: Attributes
): (errorType: string | undefined) => Metric.Metric<Input, State> => {
  const succeeded = make(attributes)
  const failed = new Map<string, Metric.Metric<Input, State>>()
  return (errorType) => {
    if (errorType === undefined) return succeeded
    const type = failed.has(errorType) || failed.size < maximumErrorTypes ? errorType : "_OTHER"
    const found = failed.get(type) ?? make({ ...attributes, [attribute.errorType]: type })
    failed.set(type, found)
    return found
  }
}

/** The type of what an effect failed with: its tag, else its name; of an `SqlError`, with the tag of its reason. */
export const errorTypeOf = (cause: Cause.Cause<unknown> | undefined): string | undefined =>
  cause === undefined
    ? undefined
    : Cause.hasInterruptsOnly(cause)
    ? "interrupted"
    : typeOfError(Cause.squash(cause))

const tagOf = (error: unknown): unknown => Predicate.hasProperty(error, "_tag") ? error._tag : undefined

const typeOfError = (error: unknown): string => {
  try {
    if (isSqlError(error)) return `SqlError.${error.reason._tag}`
    const type = tagOf(error) ?? (Predicate.hasProperty(error, "name") ? error.name : undefined)
    return typeof type === "string" && type !== "" ? printable(type.slice(0, 100)) : "_OTHER"
  } catch { // a getter may throw
    return "_OTHER"
  }
}

/** The attributes that all have: what is done, and with what. */
export const attributesOf = (
  destination: string,
  name: string,
  type: "send" | "create" | "process" | undefined
): Attributes => ({
  [attribute.system]: system,
  [attribute.operation]: name,
  ...type === undefined ? {} : { [attribute.operationType]: type },
  [attribute.destination]: destination
})

/**
 * Calls back with what an effect failed with, if it did, and how many seconds it took since its span began. Nobody is told of
 * what was interrupted from outside.
 */
export const observed = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  span: Tracer.AnySpan | undefined,
  context: Context.Context<never>,
  ended: (cause: Cause.Cause<E> | undefined, seconds: number) => void
): Effect.Effect<A, E, R> => {
  const clock = Context.get(context, Clock.Clock)
  // Spans of which no times are taken begin at 0.
  const from = (span?._tag === "Span" && span.status.startTime) || clock.currentTimeNanosUnsafe()
  const told = (cause: Cause.Cause<E> | undefined) => ended(cause, Number(clock.currentTimeNanosUnsafe() - from) / 1e9)
  // Half of what onExit costs, on paths that every message takes.
  return Effect.matchCauseEffect(effect, {
    onFailure: (cause) => {
      told(cause)
      return Effect.failCause(cause)
    },
    onSuccess: (answer) => {
      told(undefined)
      return Effect.succeed(answer)
    }
  })
}

/** What an operation sent, or tried to send, once it is known: then it has been encoded. */
export interface Sending {
  items: ReadonlyArray<{
    readonly stream: string
    readonly messages: ReadonlyArray<{ readonly messageId: string }>
  }>
}

/** An operation of a store: its span, and its metrics. */
export interface Operation {
  readonly spanName: string
  readonly spanOptions: {
    readonly kind: "producer" | "client"
    readonly attributes: Attributes
  }
  /** Measures an effect, which is in the span already. */
  readonly observe: <A, E, R>(effect: Effect.Effect<A, E, R>, sending?: Sending) => Effect.Effect<A, E, R>
  /** The same, in a span, of an effect that tells what it sends. */
  readonly run: <A, E, R>(evaluate: (sending: Sending) => Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** `send` writes messages, `create` makes them for later, others do neither. */
const operation = (store: string, name: string, type?: "send" | "create"): Operation => {
  const attributes = attributesOf(store, name, type)
  const took = byErrorType(
    (each) => duration(metric.operationDuration, "Duration of an operation of a store", each),
    attributes
  )
  const sent = byErrorType((each) => sentMessages(each), attributes)
  const spanName = `${name} ${store}`
  const kind = type === undefined ? "client" : "producer"
  const spanOptions = { kind, attributes } as const
  const untraced = { kind } as const

  const observe = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    { cache: { tracer }, context }: Fiber.Fiber<unknown, unknown>,
    span: Tracer.AnySpan | undefined,
    sending: Sending | undefined
  ): Effect.Effect<A, E, R> =>
    observed(effect, span, context, (cause, time) => {
      const errorType = errorTypeOf(cause)
      took(errorType).updateUnsafe(time, context)
      const count = sending === undefined ? 0 : countOf(sending)
      if (count > 0 && type === "send") sent(errorType).updateUnsafe(count, context)
      if (tracer === undefined || span?._tag !== "Span") return
      if (sending !== undefined) describe(span, sending, count)
      if (errorType !== undefined) span.attribute(attribute.errorType, errorType)
    })

  return {
    spanName,
    spanOptions,
    observe: (effect, sending) => Effect.withFiber((fiber) => observe(effect, fiber, fiber.cache.span, sending)),
    run: (evaluate) =>
      Effect.withFiber((fiber) =>
        Effect.useSpan(
          spanName,
          // Nobody sees the attributes of spans without a tracer.
          fiber.cache.tracer === undefined ? untraced : spanOptions,
          (span) => {
            const sending: Sending = { items: [] }
            return observe(
              Effect.provideService(evaluate(sending), Tracer.ParentSpan, span),
              fiber,
              span,
              sending
            )
          }
        )
      )
  }
}

/** The operations of a store, by its name. */
export interface Operations {
  (name: string, type?: "send" | "create"): Operation
}

export const operationsOf = (store: string): Operations => (name, type) => operation(store, name, type)

export const sentMessages = (attributes: Attributes): Metric.Counter<number> =>
  counter(metric.sent, { description: "Messages that a store wrote, or tried to write", unit: "{message}" }, attributes)

const countOf = ({ items }: Sending): number => items.reduce((sum, { messages }) => sum + messages.length, 0)

const describe = (span: Tracer.Span, { items }: Sending, count: number): void => {
  const [first] = items
  if (first === undefined) return
  if (items.every(({ stream }) => stream === first.stream)) span.attribute(attribute.stream, printable(first.stream))
  if (count === 1) span.attribute(attribute.messageId, first.messages[0]?.messageId)
  else span.attribute(attribute.messageCount, count)
}
