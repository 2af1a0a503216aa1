/** Calls that take locks of streams and tags in whatever order, each in a call of its own. Free of vitest: processes use it too. */
import { Array as Arr, Effect, Random, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"

export class Marked extends Schema.TaggedClass<Marked>()("Marked", {
  ...Message.fields,
  marks: Message.tag("mark", Schema.Array(Schema.String))
}) {}
export class Bare extends Schema.TaggedClass<Bare>()("Bare", { ...Message.fields }) {}

const Event = Schema.Union([Marked, Bare])
type Event = typeof Event.Type

export class Contended
  extends MessageStore.Service<Contended>()("test/Contended", { name: "contended", schema: Event })
{}
export type Store = Contended["Service"]

const marked = Fold.make<Event>()({ initial: 0, Marked: (sofar) => sofar + 1 })
const all: Fold.Fold<number, Event> = { initial: 0, evolve: (sofar) => sofar + 1 }

/** As Python's depeche_db writes. */
const byPython = (stream: string, message: Marked) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const data = JSON.stringify({
      _tag: "Marked",
      messageId: message.messageId,
      occurredAt: "2026-01-01T00:00:00.000Z",
      marks: message.marks
    })
    return sql`select version from depeche_write_message_contended(
      ${message.messageId}::uuid, ${stream}::text::varchar, ${data}::text::json)`
  })

/** What a call is about: two streams and two tags, in an order. */
export interface Keys {
  readonly streams: readonly [string, string]
  readonly marks: readonly [string, string]
}

const mark = (...marks: ReadonlyArray<string>) => new Marked({ marks })

type Call = (
  store: Store,
  keys: Keys
) => Effect.Effect<
  unknown,
  MessageStore.DecideError | MessageStore.WriteError | MessageStore.RedactError,
  SqlClient.SqlClient
>

/** So that each of them changes something. */
let redactions = 0

/** Whatever can be called, by name. */
export const calls: Readonly<Record<string, Call>> = {
  write: (store, { streams }) => store.write(streams[0], new Bare({})),
  "write, tagged": (store, { marks, streams }) => store.write(streams[0], [mark(marks[0]), mark(marks[1], marks[0])]),
  writeAll: (store, { streams }) => store.writeAll(streams.map((stream) => ({ stream, messages: new Bare({}) }))),
  "writeAll, tagged": (store, { marks, streams }) =>
    store.writeAll(streams.map((stream, i) => ({ stream, messages: mark(marks[i] ?? "") }))),
  synchronize: (store, { streams }) =>
    Effect.catchTag(store.synchronize(streams[0], [new Bare({}), mark()]), "MessageIdMismatchError", () => Effect.void),
  update: (store, { streams }) => store.update(streams[0], all, () => Effect.succeed(new Bare({}))),
  "update, tagged": (store, { marks, streams }) =>
    store.update(streams[0], marked, () => Effect.succeed(mark(...marks))),
  "decide, requires": (store, { streams }) =>
    store.decide(
      { one: Decision.stream(streams[0], all), other: Decision.stream(streams[1], all) },
      () => ({ stream: streams[1], messages: new Bare({}) })
    ),
  "decide, asks and writes": (store, { marks, streams }) =>
    store.decide(
      { asked: Decision.tagged({ mark: marks[0] }, marked) },
      () => ({ stream: streams[0], messages: mark(marks[1]) })
    ),
  "decide, asks both and requires": (store, { marks, streams }) =>
    store.decide(
      {
        asked: Decision.tagged([{ mark: marks[0] }, { mark: marks[1] }], marked),
        one: Decision.stream(streams[0], all)
      },
      () => ({ stream: streams[1], messages: mark(marks[1]) })
    ),
  delete: (store, { streams }) => store.delete(streams[0], { toVersion: 2 }),
  "delete, all": (store, { streams }) => store.delete(streams[0]),
  // Of both streams, whichever was read first.
  redact: (store, { streams }) =>
    Effect.gen(function*() {
      const stored = yield* Effect.forEach(streams, (stream) => Stream.runCollect(store.read(stream, { limit: 2 })))
      yield* Effect.catchTag(
        store.redact(stored.flat().map(({ messageId }) => messageId), (message) =>
          message._tag === "Marked"
            ? new Marked({ ...message, marks: message.marks.slice(0, 1) })
            : message, { metadata: () => ({ redactions: redactions += 1 }) }),
        "MessageNotFoundError", // deleted meanwhile
        () => Effect.void
      )
    }),
  "Python's function": (_, { marks, streams }) => byPython(streams[0], mark(marks[0], marks[1]))
}

export interface ContenderConfig {
  readonly url: string
  readonly database: string
  readonly fibers: number
  readonly calls: number
  readonly kinds: ReadonlyArray<string>
}

const shuffled = (names: ReadonlyArray<string>): Effect.Effect<readonly [string, string]> =>
  Effect.map(Random.shuffle(names), (some) => Arr.fromIterable(some).slice(0, 2) as never as readonly [string, string])

/** A random call of these kinds on few streams and tags. */
export const anyCall = Effect.fnUntraced(function*(store: Store, kinds: ReadonlyArray<string>) {
  const call = calls[kinds[yield* Random.nextIntBetween(0, kinds.length, { halfOpen: true })] ?? ""]
  const streams = yield* shuffled(["s1", "s2", "s3", "s4"])
  const marks = yield* shuffled(["t1", "t2", "t3", "t4"])
  return yield* call === undefined ? Effect.die("no such call") : call(store, { streams, marks })
})
