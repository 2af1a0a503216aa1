/** Appends with tags and conditions that leave together have the outcomes they would have had one by one. */
import { assert, describe, layer } from "@effect/vitest"
import { Arbitrary, Array as Arr, Effect, Exit, Fiber, Layer, Result, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { type AppendItem, type AppendOutcome, type EncodedMessage, Storage } from "../src/Storage.ts"
import { append, hold, itemOf, message, storageLayer, unique } from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"

const Whole = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Few = <S extends Schema.Constraint>(schema: S, minimum: number, maximum: number) =>
  Schema.Array(schema).check(Schema.isMinLength(minimum), Schema.isMaxLength(maximum))
const Tags = (minimum: number) => Few(Whole(7), minimum, 2).check(Schema.isUnique())

/** An append as numbers: small pools make conflicts likely. */
const Given = Schema.Struct({
  stream: Whole(5),
  expectedVersion: Schema.Literals(["any", "any", "any", "any", "any", "any", "exists", 0, 1, 2]),
  /** Indexes of messages. */
  messages: Few(Whole(31), 0, 2).check(Schema.isUnique()),
  conditions: Few(
    Schema.Struct({
      tags: Tags(1),
      types: Schema.Literals(["any", "any", "0", "1"]),
      sinceStart: Schema.Literals([true, true, true, false])
    }),
    0,
    2
  ),
  interrupted: Schema.Literals([false, false, false, false, false, true]),
  /** Whether the database refuses it, if it refuses any. */
  refused: Schema.Literals([false, false, false, true])
})
/** What is sent: wherever a message is, and how often, its tags are the same. */
const Pool = Few(Schema.Struct({ tags: Tags(0), type: Whole(1) }), 32, 32)
const Situation = Schema.Struct({
  /** Tags, and streams, that another transaction has when the appends begin. */
  tags: Tags(0),
  streams: Few(Whole(5), 0, 2).check(Schema.isUnique()),
  /** A refusal ends a whole statement, and its items are sent one by one: so not always. */
  refuses: Schema.Literals([false, false, true])
})

interface Stored extends EncodedMessage {
  readonly stream: string
  readonly globalPosition: number
}

const show = (outcome: AppendOutcome): string => {
  switch (outcome._tag) {
    case "Written":
    case "Unchanged":
      return `${outcome._tag} ${outcome.version}`
    case "WrongVersion":
      return `WrongVersion ${outcome.actualVersion}`
    case "Conflict":
      return `Conflict ${outcome.condition} ${outcome.messageId} ${outcome.globalPosition}`
    case "Duplicate":
      return `Duplicate ${outcome.messageId}`
    default:
      return outcome._tag
  }
}

/** The outcome of an item where these messages are stored. */
const outcomeOn = (stored: ReadonlyArray<Stored>, item: AppendItem): string => {
  const head = stored.filter(({ stream }) => stream === item.stream).length
  const { conditions = [], expectedVersion = head, messages } = item
  if (expectedVersion === "exists" ? head === 0 : expectedVersion !== head) return `WrongVersion ${head}`
  for (const [i, { after, tags, types }] of conditions.entries()) {
    const added = stored.find(({ globalPosition, tagged }) =>
      globalPosition > after && tags.every((tag) => tagged?.tags.includes(tag)) &&
      (types?.includes(tagged?.type ?? "") ?? true)
    )
    if (added !== undefined) return `Conflict ${i} ${added.messageId} ${added.globalPosition}`
  }
  const duplicate = messages.find(({ messageId }) => stored.some((one) => one.messageId === messageId))
  if (duplicate !== undefined) return `Duplicate ${duplicate.messageId}`
  return `${messages.length === 0 ? "Unchanged" : "Written"} ${head + messages.length}`
}

const poison = "{\"poison\":true}"

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(storageLayer, databaseLayer()), { excludeTestServices: true })(
    "appends with tags and conditions that leave together",
    (it) => {
      it.effect("have a database that refuses some", () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql`create function refuse() returns trigger language plpgsql as 'begin raise exception ''poison''; end'`
          yield* sql`create trigger refuse before insert on depeche_msgs_together
          for each row when (new.message::text like '%poison%') execute function refuse()`
        }))

      it.effect.prop(
        "have the outcomes of the same appends one by one",
        [
          Arbitrary.array(Arbitrary.schema(Given), { minLength: 1, maxLength: 48 }),
          Arbitrary.schema(Pool),
          Arbitrary.schema(Situation)
        ],
        Effect.fnUntraced(function*([given, pool, situation]) {
          const storage = yield* Storage
          const [streams, tags] = [Arr.makeBy(6, unique), Arr.makeBy(8, unique)]
          const tag = (i: number) => tags[i] ?? ""
          const ids = Arr.makeBy(32, unique)
          // Two of the tags have messages before.
          const before = itemOf(streams[0] ?? "", [], {
            messages: [message([tag(0), tag(1)], "0"), message([tag(1)], "1")]
          })
          yield* append(before)
          const { tags: start } = yield* storage.ends([], tags)
          const isRefused = (one: typeof Given.Type | undefined) => situation.refuses && one?.refused === true
          const items = given.map((one): AppendItem => ({
            stream: streams[one.stream] ?? "",
            expectedVersion: one.expectedVersion === "any" ? undefined : one.expectedVersion,
            metadata: "{}",
            messages: one.messages.map((i) => ({
              ...message(pool[i]?.tags.map(tag), `${pool[i]?.type}`, isRefused(one) ? poison : "{}"),
              // An interrupted one has messages of its own: what it left, if anything, shows whether it was on its way.
              ...(one.interrupted || isRefused(one) ? {} : { messageId: ids[i] ?? "" })
            })),
            conditions: one.conditions.map((condition) => ({
              tags: condition.tags.map(tag) as never,
              types: condition.types === "any" ? undefined : [condition.types],
              after: condition.sinceStart ? start[condition.tags[0] ?? 0] ?? 0 : 0
            }))
          }))
          const release = yield* hold([
            ...situation.streams.map((stream) => itemOf(streams[stream] ?? "", [])),
            ...situation.tags.map((each) => itemOf(unique(), [tag(each)]))
          ])
          // All are under way before the first has its answer; some are interrupted then.
          const fibers = yield* Effect.forEach(
            items,
            (item) => Effect.forkChild(Effect.result(append(item)), { startImmediately: true })
          )
          yield* Effect.forEach(fibers, (fiber, i) => given[i]?.interrupted ? Fiber.interrupt(fiber) : Effect.void)
          yield* release
          const exits = yield* Effect.forEach(fibers, Fiber.await)

          const sent = new Map(
            [before, ...items].flatMap((item) => item.messages.map((each) => [each.messageId, each] as const))
          )
          const { messages: rows } = yield* storage.readPattern({
            pattern: "%",
            fromPosition: 0,
            toPosition: Number.MAX_SAFE_INTEGER,
            direction: "backward",
            limit: 1000
          })
          const stored = rows.toReversed().filter(({ stream }) => streams.includes(stream)).map((row): Stored => ({
            ...sent.get(row.messageId) as EncodedMessage,
            stream: row.stream,
            globalPosition: row.globalPosition
          }))
          for (const stream of streams) {
            const versions = rows.filter((row) => row.stream === stream).map(({ version }) => version)
            assert.deepStrictEqual(versions, versions.map((_, i) => versions.length - i))
          }

          // How much was stored when an append was decided: of those of one stream never less than for the one before.
          const earliest = new Map<string, number>()
          for (const [i, item] of items.entries()) {
            const exit = exits[i] as Exit.Exit<Result.Result<AppendOutcome, unknown>>
            const first = stored.findIndex(({ messageId }) =>
              item.messages.some((each) => each.messageId === messageId)
            )
            if (Exit.isFailure(exit)) {
              assert.isTrue(given[i]?.interrupted && Exit.hasInterrupts(exit))
              const left = item.messages.filter(({ messageId }) => stored.some((row) => row.messageId === messageId))
              assert.include([0, item.messages.length], left.length)
              if (first >= 0) assert.match(outcomeOn(stored.slice(0, first), item), /^Written/)
              continue
            }
            if (Result.isFailure(exit.value)) {
              assert.isTrue(isRefused(given[i]))
              continue
            }
            const outcome = exit.value.success
            const from = earliest.get(item.stream) ?? 0
            if (outcome._tag === "Written") {
              assert.strictEqual(stored[first + item.messages.length - 1]?.globalPosition, outcome.globalPosition)
              assert.strictEqual(outcomeOn(stored.slice(0, first), item), show(outcome))
              assert.isAtLeast(first, from)
              earliest.set(item.stream, first + 1)
            } else {
              const when = Arr.range(from, Math.max(from, stored.length)).find((count) =>
                outcomeOn(stored.slice(0, count), item) === show(outcome)
              )
              assert.isDefined(when, `${show(outcome)} of item ${i}`)
              earliest.set(item.stream, when ?? 0)
            }
          }
        }),
        { arbitrary: { runs: 300 }, timeout: 60_000 }
      )
    }
  )
})
