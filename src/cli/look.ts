/** Commands that look. */
import { DateTime, Effect, Option, Result, Stream } from "effect"
import type { Duration } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { checkMessageId } from "../internal/checks.ts"
import { ago, duration, time } from "../internal/readable.ts"
import type { Health, Message, OperatorService, Page, Problem, SubscriptionStatus, Trace } from "../Operator.ts"
import { Json, withOperator } from "./connect.ts"
import { CommandError, Unhealthy } from "./failure.ts"
import { cell, type Colour, hint, json, line, table, toText } from "./output.ts"

/** Flags of lists. */
export const paging = {
  limit: Flag.Int("limit").pipe(Flag.withDefault(50), Flag.withDescription("How many are listed at most: 1 to 1000")),
  cursor: Flag.String("cursor").pipe(Flag.optional, Flag.withDescription("Goes on where a list has ended"))
}

const orUndefined = Option.getOrUndefined

/** Leads on to the next page. */
export const more = ({ next }: Pick<Page<unknown>, "next">) =>
  next === undefined ? Effect.void : hint(`There may be more: add --cursor '${next.replaceAll("'", "'\\''")}'`)

/** JSON if that was asked for, else what people read. */
export const show = <A, E, R>(value: A, people: Effect.Effect<void, E, R>) =>
  Effect.flatMap(Json, (asJson) => asJson ? json(value) : people)

const pages = <A, E>(list: (cursor: string | undefined) => Effect.Effect<Page<A>, E>) =>
  Effect.gen(function*() {
    const all: Array<A> = []
    let cursor: string | undefined
    do {
      const page: Page<A> = yield* list(cursor)
      all.push(...page.items)
      cursor = page.next
    } while (cursor !== undefined)
    return all
  })

const severities: Readonly<Record<Problem["severity"], Colour>> = { error: "red", warning: "yellow" }

const problems = (health: Health) =>
  health.problems.length === 0
    ? line(health.waiting === 0 ? "all is well" : `nothing is wrong; ${health.waiting} messages wait`, "green")
    : Effect.forEach(health.problems, ({ kind, message, of, partition, severity, since }) =>
      line(
        `${severity}: ${of}${partition === undefined ? "" : ` partition ${partition}`}: ${message} [${kind}${
          since === undefined ? "" : ` since ${time(since)}`
        }]`,
        severities[severity]
      ), { discard: true })

const stateOf = ({ totals }: SubscriptionStatus): string => {
  if (totals === undefined) return "outdated"
  if (totals.isVoid) return "to be reset"
  if (totals.paused !== undefined) return "paused"
  const parts = [
    totals.halted > 0 ? `${totals.halted} halted` : "",
    totals.unknownType > 0 ? `${totals.unknownType} unknown type` : "",
    totals.pausedPartitions > 0 ? `${totals.pausedPartitions} paused` : ""
  ].filter((part) => part !== "")
  return parts.length > 0 ? parts.join(", ") : "ok"
}

const statusOf = (operator: OperatorService) =>
  Effect.gen(function*() {
    const [overview, health] = [yield* operator.overview, yield* operator.health()]
    const aggregatedStreams = yield* pages((cursor) => operator.aggregatedStreams({ cursor, limit: 1000 }))
    const subscriptions = yield* pages((cursor) => operator.subscriptions({ cursor, limit: 1000 }))
    const projections = yield* pages((cursor) => operator.projections({ cursor, limit: 1000 }))
    const { now } = overview.vitals
    const people = Effect.gen(function*() {
      const { bytes, lastPosition, messages } = overview.vitals
      const size = [
        messages === undefined ? "messages were not counted yet" : `about ${cell(Math.round(messages)).text} messages`,
        `last position ${cell(lastPosition).text}`,
        ...bytes === undefined ? [] : [`${cell(Math.round(bytes / 1024)).text} KiB`],
        `objects of version ${overview.objects.made ?? "?"}`
      ]
      yield* line(`store ${overview.store}: ${size.join(", ")}`, "bold")
      if (aggregatedStreams.length > 0) {
        yield* line("")
        yield* table(
          ["aggregated stream", "partitions", "messages", "waiting", "projector looked"],
          aggregatedStreams.map(({ name, progress }) => [
            cell(name),
            cell(progress?.partitions),
            cell(progress?.messages),
            cell(progress?.waiting),
            cell(progress === undefined ? "outdated" : ago(progress.scannedAt, now))
          ])
        )
      }
      if (subscriptions.length > 0) {
        yield* line("")
        yield* table(
          ["subscription", "of", "lag", "age", "claimed", "parked", "acknowledged", "state"],
          subscriptions.map((each) => {
            const { aggregatedStream, name, totals } = each
            const state = stateOf(each)
            return [
              cell(name),
              cell(aggregatedStream),
              cell(totals?.lag),
              cell(duration(totals?.age)),
              cell(totals === undefined ? "" : `${totals.claimed}/${totals.partitions}`),
              cell(totals?.parked, (totals?.parked ?? 0) > 0 ? "red" : undefined),
              cell(totals === undefined ? "" : ago(totals.acknowledgedAt, now)),
              cell(state, state === "ok" ? "green" : "yellow")
            ]
          })
        )
      }
      if (projections.length > 0) {
        yield* line("")
        yield* table(
          ["projection", "version", "state", "handled", "of", "used"],
          projections.flatMap(({ name, versions }) =>
            versions.map(({ handled, state, total, usedAt, version }) => [
              cell(name),
              cell(version),
              cell(state),
              cell(handled),
              cell(total),
              cell(ago(usedAt, now))
            ])
          )
        )
      }
      yield* line("")
      yield* problems(health)
    })
    yield* show({ ...overview, health, aggregatedStreams, subscriptions, projections }, people)
  })

const status = Command.make("status", {}, () => withOperator(statusOf)).pipe(
  Command.withDescription("How a store is: its projectors, subscriptions and projections, and what is wrong")
)

const bounded = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.optional, Flag.withMetavar("<duration>"), Flag.withDescription(description))

const check = Command.make("check", {
  lag: Flag.Int("lag").pipe(Flag.optional, Flag.withDescription("How many messages a subscription may be behind")),
  parked: Flag.Int("parked").pipe(Flag.withDefault(0), Flag.withDescription("How many messages may be parked")),
  age: bounded("age", "How long a message may wait, as \"5 minutes\" (default)"),
  projector: bounded("projector", "How long ago a projector may have looked. Default \"1 minute\""),
  progress: bounded("progress", "How long a claim may be without progress. Default \"5 minutes\""),
  transaction: bounded("transaction", "How long a transaction may be open. Default \"15 minutes\"")
}, ({ age, lag, parked, progress, projector, transaction }) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const of = (given: Option.Option<string>) => orUndefined(given) as Duration.Input | undefined // it is checked there
    const health = yield* operator.health({
      lag: orUndefined(lag),
      parked,
      age: of(age),
      projector: of(projector),
      progress: of(progress),
      transaction: of(transaction)
    })
    yield* show(health, problems(health))
    if (!health.isHealthy) return yield* new Unhealthy()
  }))).pipe(Command.withDescription("Whether all is well: exits with 1 and the reasons if not"))

const streams = Command.make("streams", {
  pattern: Argument.String("pattern").pipe(
    Argument.optional,
    Argument.withDescription("LIKE: % any run of characters, _ any one")
  ),
  ...paging
}, ({ cursor, limit, pattern }) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const page = yield* operator.streams({ pattern: orUndefined(pattern), limit, cursor: orUndefined(cursor) })
    const rows = page.items.map((each) => [
      cell(each.stream),
      cell(each.version),
      cell(each.messages),
      cell(each.globalPosition),
      cell(time(each.addedAt))
    ])
    const columns = ["stream", "version", "messages", "global position", "added"]
    yield* show(page, Effect.andThen(table(columns, rows), more(page)))
  }))).pipe(Command.withDescription("Streams, with how many messages they have"))

const messages = (items: ReadonlyArray<Message>) =>
  table(
    ["global position", "stream", "version", "type", "message", "added"],
    items.map((each) => [
      cell(each.globalPosition),
      cell(each.stream),
      cell(each.version),
      cell(each.type ?? "?"),
      cell(each.messageId),
      cell(time(each.addedAt))
    ])
  )

const details = (operator: OperatorService, id: string) =>
  Effect.gen(function*() {
    const found = yield* operator.message(id)
    if (found === undefined) return yield* new CommandError({ reason: `there is no message ${id} in this store` })
    const { cause, message, places, tags } = found
    const people = Effect.gen(function*() {
      yield* line(`${cell(message.type ?? "?").text} ${message.messageId}`, "bold")
      yield* line(
        `${cell(message.stream).text} version ${message.version}, global position ${message.globalPosition}, added ${
          time(message.addedAt)
        }`
      )
      if (tags.length > 0) yield* line(`tags: ${tags.map((tag) => cell(tag).text).join(", ")}`)
      if (cause !== undefined) yield* line(`caused by ${cell(cause.type ?? "?").text} ${cause.messageId}`)
      for (const { aggregatedStream, partition, position, subscriptions } of places) {
        const states = subscriptions.map(({ name, state }) => `${name}: ${state}`).join(", ")
        yield* line(
          `${aggregatedStream} partition ${partition}, position ${position}${states === "" ? "" : ` (${states})`}`
        )
      }
      yield* message.oversize === undefined
        ? line(toText({ data: message.data, metadata: message.metadata }, { indented: true }))
        : line(`${message.oversize} bytes: too large to be read`, "yellow")
    })
    yield* show(found, people)
  })

const showCommand = Command.make("show", {
  what: Argument.String("what").pipe(Argument.withDescription("The id of a message, or the name of a stream")),
  forward: Flag.Boolean("forward").pipe(Flag.withDefault(false), Flag.withDescription("From the first message on")),
  ...paging
}, ({ cursor, forward, limit, what }) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    if (Result.isSuccess(checkMessageId(what))) return yield* details(operator, what)
    const direction = forward ? "forward" : "backward"
    const page = yield* operator.search({ stream: what, limit, cursor: orUndefined(cursor), direction })
    if (page.items.length === 0 && page.next === undefined && Option.isNone(cursor)) {
      return yield* new CommandError({ reason: `stream "${cell(what).text}" has no messages` })
    }
    yield* show(page, Effect.andThen(messages(page.items), more(page)))
  }))).pipe(
    Command.withDescription("A message with all that is known of it, or the messages of a stream, the newest first")
  )

const parseTime = (name: string) =>
  Flag.Date(name).pipe(Flag.optional, Flag.map(Option.map((date) => DateTime.fromDateUnsafe(date))))

const search = Command.make("search", {
  pattern: Flag.String("pattern").pipe(Flag.optional, Flag.withDescription("Of names of streams; LIKE")),
  type: Flag.String("type").pipe(Flag.optional, Flag.withDescription("The type of the messages")),
  tag: Flag.String("tag").pipe(
    Flag.atLeast(0),
    Flag.withDescription("A tag that they have, as name:value; repeatable")
  ),
  correlation: Flag.String("correlation").pipe(Flag.optional, Flag.withDescription("Their correlation id")),
  causation: Flag.String("causation").pipe(Flag.optional, Flag.withDescription("The id of what caused them")),
  since: parseTime("since").pipe(Flag.withDescription("Added at this time or later")),
  until: parseTime("until").pipe(Flag.withDescription("Added at this time or earlier")),
  seconds: Flag.Int("seconds").pipe(Flag.withDefault(10), Flag.withDescription("For how long it searches; at most 60")),
  ...paging
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const page = yield* operator.search({
      pattern: orUndefined(flags.pattern),
      type: orUndefined(flags.type),
      tags: flags.tag,
      correlationId: orUndefined(flags.correlation),
      causationId: orUndefined(flags.causation),
      fromTime: orUndefined(flags.since),
      toTime: orUndefined(flags.until),
      limit: flags.limit,
      cursor: orUndefined(flags.cursor),
      timeLimit: flags.seconds * 1000
    })
    const reached = page.reached === undefined ? Effect.void : hint(`Looked at down to global position ${page.reached}`)
    yield* show(page, messages(page.items).pipe(Effect.andThen(reached), Effect.andThen(more(page))))
  }))).pipe(Command.withDescription("Messages by type, tags, correlation, causation and time, the newest first"))

const tail = Command.make("tail", {
  pattern: Argument.String("pattern").pipe(Argument.optional, Argument.withDescription("Of names of streams; LIKE")),
  after: Flag.Int("after").pipe(Flag.optional, Flag.withDescription("Begins behind this global position. Default: now"))
}, ({ after, pattern }) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const asJson = yield* Json
    yield* operator.follow({ pattern: orUndefined(pattern), after: orUndefined(after) }).pipe(
      Stream.runForEach((message) => {
        const { addedAt, data, globalPosition, stream, type, version } = message
        return line(
          asJson ?
            toText(message, { indented: false }) :
            `${time(addedAt)} ${globalPosition} ${cell(stream).text}@${version} ${cell(type ?? "?").text} ${
              toText(data, { indented: false, enough: 500 }).slice(0, 500)
            }`
        )
      })
    )
  }))).pipe(Command.withDescription("Messages as they are written, until it is interrupted"))

/** A message below its cause, and in the order of global positions. */
const tree = ({ message: { messageId }, messages: all }: Pick<Trace, "message" | "messages">) => {
  const ids = new Set(all.map((each) => each.messageId))
  const causeOf = ({ metadata: { causationId } }: Message) =>
    causationId !== undefined && ids.has(causationId) ? causationId : ""
  const lines: Array<readonly [string, boolean]> = []
  const printed = new Set<string>()
  const add = (of: ReadonlyArray<Message>, indent: string): void => {
    of.forEach((each, i) => {
      if (printed.has(each.messageId)) return
      printed.add(each.messageId)
      const isLast = i === of.length - 1
      const branch = indent === "" && causeOf(each) === "" ? "" : isLast ? "└─ " : "├─ "
      const place = `${cell(each.stream).text}@${each.version}`
      lines.push([
        `${indent}${branch}${cell(each.type ?? "?").text} ${place} ${each.messageId}`,
        each.messageId === messageId
      ])
      const below = branch === "" ? "" : isLast ? "   " : "│  "
      add(all.filter((one) => causeOf(one) === each.messageId), indent + below)
    })
  }
  add(all.filter((each) => causeOf(each) === ""), "")
  add(all, "") // those that name each other in a circle
  return lines
}

const trace = Command.make("trace", {
  message: Argument.String("message").pipe(Argument.withDescription("The id of a message")),
  seconds: Flag.Int("seconds").pipe(Flag.withDefault(10), Flag.withDescription("For how long it looks; at most 60"))
}, ({ message, seconds }) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const found = yield* operator.trace(message, { timeLimit: seconds * 1000 })
    if (found === undefined) {
      return yield* new CommandError({ reason: `there is no message ${cell(message).text} in this store` })
    }
    const people = Effect.forEach(tree(found), ([text, isMeant]) => line(text, isMeant ? "bold" : undefined), {
      discard: true
    })
    const reached = found.reached === undefined
      ? Effect.void
      : hint(`Looked at up to global position ${found.reached}: there may be more; give more --seconds`)
    yield* show(found, Effect.andThen(people, reached))
  }))).pipe(Command.withDescription("What led to a message, and what came of it, as a tree"))

const scheduled = Command.make("scheduled", {
  refused: Flag.Boolean("refused").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Those that could not be written")
  ),
  ...paging
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const { cursor, limit, refused } = flags
    const page = yield* operator.scheduled({ limit, cursor: orUndefined(cursor), refused })
    const rows = page.items.map((each) => [
      cell(time(each.at)),
      cell(each.key),
      cell(each.stream),
      cell(each.type ?? "?"),
      cell(each.refused, "red")
    ])
    yield* show(page, Effect.andThen(table(["at", "key", "stream", "type", "refused"], rows), more(page)))
  }))).pipe(Command.withDescription("Messages that are to be written later"))

export const commands = [status, check, streams, showCommand, search, tail, trace, scheduled] as const
