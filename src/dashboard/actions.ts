/** What can be done, by the names that forms send. Each answers what was done, in a sentence. */
import { DateTime, Effect, Option, Predicate } from "effect"
import { InvalidArgumentError } from "../errors.ts"
import { count } from "../internal/readable.ts"
import type { ErrorKind, OperatorService, PromotionError, Start, WhichParked } from "../Operator.ts"
import { discardAll } from "../operator/discardAll.ts"
import { type Query, required } from "./asked.ts"

type Action = (operator: OperatorService, form: Query) => Effect.Effect<string, PromotionError>

const wrong = (argument: string, reason: string) => Effect.fail(new InvalidArgumentError({ argument, reason }))

const named = (form: Query, name: string) => required(name, form.text(name))

const messages = (number: number) => number === 1 ? "One message" : `${count(number)} messages`

/** Of what is paused, resumed: a subscription, or one of its partitions. */
const target = (subscription: string, partition: number | undefined) =>
  partition === undefined ? subscription : `Partition ${partition} of ${subscription}`

/** An error as forms and URLs have it: in JSON, since forms would change the ends of its lines. */
export const errorText = ({ message, tag }: ErrorKind): string => JSON.stringify({ tag, message })

export const errorOf = (text: string | undefined): Effect.Effect<ErrorKind | undefined, InvalidArgumentError> => {
  if (text === undefined) return Effect.succeed(undefined)
  const refused = wrong("error", "must be one of those that the list of errors has")
  return Effect.matchEffect(Effect.try((): unknown => JSON.parse(text)), {
    onFailure: () => refused,
    onSuccess: (parsed) =>
      Predicate.hasProperty(parsed, "tag") && typeof parsed.tag === "string" &&
        Predicate.hasProperty(parsed, "message") && typeof parsed.message === "string"
        ? Effect.succeed({ tag: parsed.tag, message: parsed.message })
        : refused
  })
}

/** Which parked messages are meant: those of an error, those that were marked, or all. */
const which = Effect.fnUntraced(function*(form: Query) {
  const error = yield* errorOf(form.text("error"))
  const places = yield* Effect.forEach(form.all("place"), (text) => {
    const [, partition, position] = /^(\d{1,10}):(\d{1,10})$/.exec(text) ?? []
    return partition === undefined || position === undefined
      ? wrong("place", "must be a partition and a position")
      : Effect.succeed({ partition: Number(partition), position: Number(position) })
  })
  if (form.text("all") === "yes") return undefined
  if (error === undefined && places.length === 0) {
    return yield* wrong("place", "is missing: mark the messages that are meant")
  }
  const chosen: WhichParked = { error, places }
  return chosen
})

const startOf = Effect.fnUntraced(function*(form: Query): Effect.fn.Return<Start, InvalidArgumentError> {
  switch (form.text("start")) {
    case "beginning":
      return "beginning"
    case "next":
      return "next"
    case "position": {
      const globalPosition = yield* form.whole("position")
      return globalPosition === undefined
        ? yield* wrong("position", "is missing: enter the global position behind which it is to begin")
        : { globalPosition }
    }
    case "time": {
      const time = yield* timeOf(form, "time")
      return time === undefined ? yield* wrong("time", "is missing: enter when it is to begin") : { time }
    }
    default:
      return yield* wrong("start", "is missing: choose where it is to begin")
  }
})

/** As a browser sends what is entered into a field for a date and a time: in UTC here, as all times of the dashboard. */
export const timeOf = (
  query: Query,
  name: string
): Effect.Effect<DateTime.Utc | undefined, InvalidArgumentError> => {
  const text = query.typed(name)
  if (text === undefined) return Effect.succeed(undefined)
  const isLocal = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$/.test(text)
  return Option.match(DateTime.make(isLocal ? `${text.replace(" ", "T")}${text.length > 10 ? "Z" : ""}` : text), {
    onNone: () => wrong(name, "must be a date and a time, as 2026-01-31T18:05"),
    onSome: (time) => Effect.succeed(DateTime.toUtc(time))
  })
}

export const actions: ReadonlyMap<string, Action> = new Map<string, Action>([
  ["pause", (operator, form) =>
    Effect.gen(function*() {
      const subscription = yield* named(form, "subscription")
      const partition = yield* form.whole("partition")
      yield* operator.pause(subscription, { partition, reason: form.typed("reason"), by: form.typed("by") })
      return `${target(subscription, partition)} is paused, in all processes.`
    })],
  ["resume", (operator, form) =>
    Effect.gen(function*() {
      const subscription = yield* named(form, "subscription")
      const partition = yield* form.whole("partition")
      const wasPaused = yield* operator.resume(subscription, { partition })
      return wasPaused
        ? `${target(subscription, partition)} goes on.`
        : `${target(subscription, partition)} was not paused.`
    })],
  ["reset", (operator, form) =>
    Effect.gen(function*() {
      const subscription = yield* named(form, "subscription")
      yield* operator.reset(subscription, yield* startOf(form))
      return `${subscription} was reset.`
    })],
  ["rebuild", (operator, form) =>
    Effect.gen(function*() {
      const name = yield* named(form, "aggregatedStream")
      const subscriptions = yield* operator.rebuild(name)
      return `${name} is being linked again by its projectors.${
        subscriptions.length === 0 ? "" : ` Now reset ${subscriptions.join(", ")}.`
      }`
    })],
  ["requeue", (operator, form) =>
    Effect.gen(function*() {
      const subscription = yield* named(form, "subscription")
      const number = yield* operator.requeue(subscription, yield* which(form))
      return `${messages(number)} will be handled again, by whoever runs ${subscription}.`
    })],
  ["discard", (operator, form) =>
    Effect.gen(function*() {
      const subscription = yield* named(form, "subscription")
      const number = yield* discardAll(operator, subscription, yield* which(form))
      return `${messages(number)} ${number === 1 ? "was" : "were"} discarded.`
    })],
  ["promote", (operator, form) =>
    Effect.gen(function*() {
      const projection = yield* named(form, "projection")
      const version = (yield* form.whole("version")) ?? 0
      yield* operator.promote(projection, version, { lag: yield* form.whole("lag") })
      return `Readers of ${projection} see version ${version}.`
    })],
  ["rollback", (operator, form) =>
    Effect.gen(function*() {
      const projection = yield* named(form, "projection")
      const version = yield* operator.rollback(projection, { lag: yield* form.whole("lag") })
      return `Readers of ${projection} see version ${version} again.`
    })],
  ["drop", (operator, form) =>
    Effect.gen(function*() {
      const projection = yield* named(form, "projection")
      const version = (yield* form.whole("version")) ?? 0
      yield* operator.dropVersion(projection, version)
      return `Version ${version} of ${projection} was dropped.`
    })],
  ["cancel", (operator, form) =>
    Effect.gen(function*() {
      const key = yield* named(form, "key")
      return (yield* operator.cancelScheduled(key))
        ? `The message of key ${key} will not be written.`
        : `No message waits under the key ${key} any more.`
    })]
])
