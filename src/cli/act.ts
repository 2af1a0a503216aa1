/** Commands that change something: they ask first, or are told `--yes`. */
import { DateTime, Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { time } from "../internal/readable.ts"
import * as Operator from "../Operator.ts"
import type { WhichParked } from "../Operator.ts"
import { discardAll } from "../operator/discardAll.ts"
import { confirm, yes } from "./ask.ts"
import { Json, storeName, withDatabase, withOperator } from "./connect.ts"
import { CommandError } from "./failure.ts"
import { more, paging, show } from "./look.ts"
import { cell, hint, line, table } from "./output.ts"

const subscription = Argument.String("subscription").pipe(Argument.withDescription("The name of a subscription"))
const orUndefined = Option.getOrUndefined

const partition = Flag.Int("partition").pipe(Flag.optional, Flag.withDescription("One partition of it. Default: all"))

const parked = Command.make("parked", {
  subscription,
  errors: Flag.Boolean("errors").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Grouped by errors that are alike")
  ),
  ...paging
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    if (flags.errors) {
      const errors = yield* operator.parkedErrors(flags.subscription, { limit: flags.limit })
      const rows = errors.map(({ count, lastParkedAt, message, tag }) => [
        cell(count),
        cell(tag),
        cell(message.slice(0, 200)),
        cell(time(lastParkedAt))
      ])
      return yield* show(errors, table(["count", "error", "message", "last"], rows))
    }
    const page = yield* operator.parked(flags.subscription, { limit: flags.limit, cursor: orUndefined(flags.cursor) })
    const rows = page.items.map((each) => [
      cell(`${each.partition}:${each.position}`),
      cell(each.messageId),
      cell(each.message?.type ?? "?"),
      cell(each.message?.stream ?? "?"),
      cell(each.attempts),
      cell(`${each.error.tag}: ${each.error.message}`.slice(0, 100)),
      cell(time(each.parkedAt)),
      cell(each.requeuedAt === undefined ? "" : "requeued")
    ])
    const columns = ["place", "message", "type", "stream", "attempts", "error", "parked", ""]
    yield* show(page, Effect.andThen(table(columns, rows), more(page)))
  }))).pipe(Command.withDescription("The dead letters of a subscription"))

/** Which parked messages are meant. */
const which = {
  message: Flag.String("message").pipe(Flag.atLeast(0), Flag.withDescription("The id of a parked message; repeatable")),
  place: Flag.String("place").pipe(
    Flag.atLeast(0),
    Flag.withMetavar("<partition:position>"),
    Flag.withDescription("The place of a parked message, as `parked` lists it; repeatable")
  ),
  error: Flag.String("error").pipe(
    Flag.optional,
    Flag.withMetavar("<error: message>"),
    Flag.withDescription("All whose error is like this, as `parked --errors` lists them: \"Missing: no order #\"")
  ),
  all: Flag.Boolean("all").pipe(Flag.withDefault(false), Flag.withDescription("All of them"))
}

interface Meant {
  readonly subscription: string
  readonly message: ReadonlyArray<string>
  readonly place: ReadonlyArray<string>
  readonly error: Option.Option<string>
  readonly all: boolean
}

const meant = Effect.fnUntraced(function*(flags: Meant) {
  const given = flags.message.length + flags.place.length + (Option.isSome(flags.error) ? 1 : 0)
  if (flags.all === given > 0) {
    return yield* new CommandError({ reason: "which ones? Give --message, --place or --error, or --all" })
  }
  const places = yield* Effect.forEach(flags.place, (text) => {
    const [, part, at] = /^(\d+):(\d+)$/.exec(text) ?? []
    return part === undefined || at === undefined
      ? Effect.fail(new CommandError({ reason: `--place must be partition:position, not ${cell(text).text}` }))
      : Effect.succeed({ partition: Number(part), position: Number(at) })
  })
  const chosen: WhichParked = {
    places,
    messageIds: flags.message,
    error: Option.getOrUndefined(Option.map(flags.error, (text) => {
      const [, tag = "Error", message = text] = /^([^:\s]+): ([^]*)$/.exec(text) ?? []
      return { tag, message }
    }))
  }
  return flags.all ? undefined : chosen
})

/** Asks about them; answers which. */
const confirmed = Effect.fnUntraced(function*(
  flags: Meant & { readonly yes: boolean },
  todo: readonly [verb: string, how: string]
) {
  const chosen = yield* meant(flags)
  const all = chosen === undefined ? "all" : "these"
  yield* confirm(flags.yes, `${todo[0]} ${all} parked messages of ${cell(flags.subscription).text} ${todo[1]}?`)
  return chosen
})

/** Tells how many they were; if none, where to look. */
const counted = Effect.fnUntraced(function*(count: number, what: string, { all, subscription: name }: Meant) {
  yield* show({ count }, line(`${count} messages ${what}`, count > 0 || all ? "green" : "yellow"))
  if (count > 0 || all) return
  const listed = `parked ${cell(name).text}`
  yield* hint(
    `None of those is parked, or all were requeued before: \`${listed}\` lists places and ids, \`${listed} --errors --json\` ` +
      "errors, which are meant as \"tag: message\""
  )
})

const requeue = Command.make(
  "requeue",
  { subscription, ...which, yes },
  (flags) =>
    withOperator(Effect.fnUntraced(function*(operator) {
      const chosen = yield* confirmed(flags, ["Have", "handled again"])
      yield* counted(
        yield* operator.requeue(flags.subscription, chosen),
        "are handled again by whoever runs the subscription",
        flags
      )
    }))
).pipe(Command.withDescription("Has parked messages handled again, by the processes of the subscription"))

const discard = Command.make(
  "discard",
  { subscription, ...which, yes },
  (flags) =>
    withOperator(Effect.fnUntraced(function*(operator) {
      const chosen = yield* confirmed(flags, ["Discard", "for good"])
      const count = yield* discardAll(operator, flags.subscription, chosen)
      yield* counted(count, "were discarded", flags)
    }))
).pipe(Command.withDescription("Gives parked messages up; they stay in their streams"))

const pause = Command.make("pause", {
  subscription,
  partition,
  reason: Flag.String("reason").pipe(Flag.optional, Flag.withDescription("Shown by `status`")),
  by: Flag.String("by").pipe(Flag.optional, Flag.withDescription("Who says so; shown by `status`")),
  yes
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    yield* confirm(flags.yes, `Pause ${cell(flags.subscription).text}, in all processes?`)
    yield* operator.pause(flags.subscription, {
      partition: orUndefined(flags.partition),
      reason: orUndefined(flags.reason),
      by: orUndefined(flags.by)
    })
    yield* show({ paused: true }, line("paused", "green"))
  }))).pipe(Command.withDescription("Pauses a subscription, or one of its partitions, in all processes"))

const resume = Command.make(
  "resume",
  { subscription, partition, yes },
  (flags) =>
    withOperator(Effect.fnUntraced(function*(operator) {
      yield* confirm(flags.yes, `Resume ${cell(flags.subscription).text}?`)
      const resumed = yield* operator.resume(flags.subscription, { partition: orUndefined(flags.partition) })
      yield* show({ resumed }, line(resumed ? "resumed" : "was not paused", resumed ? "green" : "yellow"))
    }))
).pipe(Command.withDescription("Lifts a pause"))

const reset = Command.make("reset", {
  subscription,
  next: Flag.Boolean("next").pipe(
    Flag.withDefault(false),
    Flag.withDescription("Begin with what is linked from now on")
  ),
  time: Flag.Date("time").pipe(
    Flag.optional,
    Flag.withDescription("Begin with what has occurred at this time or later")
  ),
  after: Flag.Int("after").pipe(Flag.optional, Flag.withDescription("Begin behind this global position")),
  yes
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const starts = [
      ...flags.next ? ["next" as const] : [],
      ...Option.toArray(Option.map(flags.time, (at) => ({ time: DateTime.fromDateUnsafe(at) }))),
      ...Option.toArray(Option.map(flags.after, (globalPosition) => ({ globalPosition })))
    ]
    const [start = "beginning" as const, other] = starts
    if (other !== undefined) return yield* new CommandError({ reason: "give one of --next, --time and --after" })
    yield* confirm(
      flags.yes,
      `Reset ${cell(flags.subscription).text}? It forgets its checkpoints and parked messages${
        start === "beginning" ? ", and handles all messages again" : ""
      }.`
    )
    yield* operator.reset(flags.subscription, start)
    yield* show({ reset: true }, line("reset", "green"))
  }))).pipe(Command.withDescription("Begins a subscription again: with the first message, unless told otherwise"))

const rebuild = Command.make("rebuild", {
  stream: Argument.String("aggregated-stream").pipe(Argument.withDescription("The name of an aggregated stream")),
  yes
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    const name = cell(flags.stream).text
    yield* confirm(flags.yes, `Rebuild ${name}? Its subscriptions stand still until each is reset.`)
    const subscriptions = yield* operator.rebuild(flags.stream)
    const todo = subscriptions.length === 0 ? "" : `; now reset ${subscriptions.join(", ")}`
    yield* show({ subscriptions }, line(`${name} is being linked again by its projectors${todo}`, "green"))
  }))).pipe(Command.withDescription("Has all messages of an aggregated stream linked again"))

const projection = Argument.String("projection").pipe(Argument.withDescription("The name of a projection"))

const lag = Flag.Int("lag").pipe(
  Flag.optional,
  Flag.withDescription("How many messages may be missing in it. Default: none")
)

const promote = Command.make("promote", {
  projection,
  version: Argument.Int("version").pipe(Argument.withDescription("The version that readers are to see")),
  lag,
  yes
}, (flags) =>
  withOperator(Effect.fnUntraced(function*(operator) {
    yield* confirm(flags.yes, `Show readers version ${flags.version} of ${cell(flags.projection).text}?`)
    yield* operator.promote(flags.projection, flags.version, { lag: orUndefined(flags.lag) })
    yield* show({ promoted: flags.version }, line(`readers see version ${flags.version}`, "green"))
  }))).pipe(Command.withDescription("Shows readers a version of a projection"))

const rollback = Command.make(
  "rollback",
  { projection, lag, yes },
  (flags) =>
    withOperator(Effect.fnUntraced(function*(operator) {
      yield* confirm(flags.yes, `Show readers of ${cell(flags.projection).text} the version that they saw before?`)
      const promoted = yield* operator.rollback(flags.projection, { lag: orUndefined(flags.lag) })
      yield* show({ promoted }, line(`readers see version ${promoted}`, "green"))
    }))
).pipe(Command.withDescription("Shows readers the lower version that they saw last"))

const migrate = Command.make("migrate", {
  print: Flag.Boolean("print").pipe(Flag.withDefault(false), Flag.withDescription("Print the SQL, and run nothing")),
  yes
}, (flags) =>
  withDatabase(
    Effect.gen(function*() {
      const name = yield* storeName
      const pending = yield* Operator.pendingMigrations(name)
      const asJson = yield* Json
      if (flags.print) {
        yield* show(
          pending,
          Effect.forEach(
            pending.flatMap(({ kind, migrations, name: of }) =>
              migrations.map(({ id, name: title, statements }) =>
                `-- ${kind} ${of}, migration ${id}: ${title}\nbegin;\n${statements.join(";\n\n")};\ncommit;\n`
              )
            ),
            (text) => line(text),
            { discard: true }
          )
        )
        return
      }
      if (pending.length === 0) return yield* show(pending, line("nothing to be done", "green"))
      const what = pending.map((each) => `${each.kind} ${each.name}`)
      if (!asJson) yield* line(`${what.length} to be made or brought up to date: ${what.slice(0, 10).join(", ")}`)
      yield* confirm(flags.yes, `Change the database objects of ${name}?`)
      const done = yield* Operator.migrate(name)
      yield* show(
        done.map(({ kind, migrations, name: of }) => ({ kind, name: of, migrations: migrations.map(({ id }) => id) })),
        line("done", "green")
      )
    }),
    { creates: true }
  )).pipe(
    Command.withDescription(
      "Makes the database objects of a store, or brings them up to date with all that belongs to it"
    )
  )

export const commands = [
  migrate,
  parked,
  requeue,
  discard,
  pause,
  resume,
  reset,
  rebuild,
  promote,
  rollback
] as const
