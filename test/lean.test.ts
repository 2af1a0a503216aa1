/** Appends to one stream have functions of their own: when they are called, and that they agree with those that append anything. */
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, Context, Deferred, Effect, Fiber, Layer, Tracer } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type AppendItem, type AppendOutcome, type EncodedMessage, Storage } from "../src/Storage.ts"
import { hold, itemOf, message, name, nobodyWrote, standsInLine, storageLayer, unique } from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"

/** What an effect does, and the functions of the store that its statements call, in their order. */
const called = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const result = yield* Effect.withTracer(effect, tracer)
  const functions = spans.flatMap(({ attributes }) =>
    /effect_message_store_(single|batch|append|decide)_/.exec(String(attributes.get("db.query.text")))?.[1] ?? []
  )
  return [result, functions] as const
})

const show = (outcome: AppendOutcome | undefined): string => {
  switch (outcome?._tag) {
    case "Written":
      return `written ${outcome.version}`
    case "WrongVersion":
      return `version ${outcome.actualVersion}`
    case "Duplicate":
      return `duplicate ${outcome.messageId}`
    default:
      return String(outcome?._tag)
  }
}

const appended = (item: AppendItem) =>
  Effect.flatMap(
    Storage,
    (storage) => called(Effect.map(storage.append([item], { atomic: true }), ([outcome]) => show(outcome)))
  )

/** Messages whose ids rise, as those of UUIDv7 do. */
const rising = (
  count: number,
  tags: (i: number) => ReadonlyArray<string> = () => []
): ReadonlyArray<EncodedMessage> => {
  const ids = Arr.makeBy(count, unique).toSorted()
  return ids.map((messageId, i) => ({ ...message(tags(i)), messageId }))
}

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(storageLayer, databaseLayer()), { excludeTestServices: true })(
    "appends to one stream",
    (it) => {
      it.effect("are one statement, in a transaction as well", () =>
        Effect.gen(function*() {
          const storage = yield* Storage
          const [one, functions] = yield* appended(itemOf("s", []))
          assert.strictEqual(one, "written 1")
          assert.deepStrictEqual(functions, ["single"])
          for (const options of [{ expectedVersion: 1 }, { expectedVersion: "exists" }] as const) {
            const [many, ofMany] = yield* appended(itemOf("s", [], { messages: rising(1), ...options }))
            assert.deepStrictEqual([many.slice(0, 7), ofMany], ["written", ["single"]])
          }
          const [many, ofMany] = yield* appended(itemOf("s", [], { messages: rising(3), expectedVersion: 3 }))
          assert.strictEqual(many, "written 6")
          assert.deepStrictEqual(ofMany, ["batch"])
          const tagged = itemOf("s", [], { messages: rising(2, (i) => [`a:${i}`, "b:1"]) })
          assert.deepStrictEqual((yield* appended(tagged))[1], ["batch"])
          assert.deepStrictEqual((yield* appended(itemOf("s", ["a:1", "c:1"])))[1], ["single"])
          const inTransaction = storage.withTransaction(Effect.all([
            appended(itemOf("s", [])),
            appended(itemOf("s", [], { messages: rising(2) }))
          ]))
          const [[last, first], [, second]] = yield* inTransaction
          assert.strictEqual(last, "written 10")
          assert.deepStrictEqual([...first, ...second], ["single", "batch"])
          // Each message has the tags that are its own.
          const sql = yield* SqlClient.SqlClient
          const tags = yield* sql<{ readonly tags: string }>`
          select m.version || ' ' || string_agg(t.tag, ' ' order by t.tag) as tags
          from ${sql(`effect_message_store_tags_${name}`)} t join ${
            sql(`depeche_msgs_${name}`)
          } m using (global_position)
          where m.stream = 's' group by m.version order by m.version`
          assert.deepStrictEqual(tags.map((row) => row.tags), ["7 a:0 b:1", "8 a:1 b:1", "9 a:1 c:1"])
        }))

      it.effect("of several items of one stream that ask nothing are one statement, with the answer of each", () =>
        Effect.gen(function*() {
          const [storage, sql] = [yield* Storage, yield* SqlClient.SqlClient]
          const itemsOf = (stream: string, messages: ReadonlyArray<EncodedMessage>) =>
            [
              itemOf(stream, [], { messages: messages.slice(0, 2), metadata: "{\"item\":1}" }),
              itemOf(stream, [], { messages: messages.slice(2, 3), metadata: "{\"item\":2}" }),
              itemOf(stream, [], { messages: messages.slice(3), metadata: "{\"item\":3}" })
            ] as const
          const appendedAll = (items: Arr.NonEmptyReadonlyArray<AppendItem>) =>
            called(storage.append(items, { atomic: true }))
          const stored = (stream: string) =>
            sql<{ readonly message_id: string; readonly version: number; readonly item: number; readonly at: number }>`
            select message_id, version, (metadata->>'item')::int as item, global_position::int as at
            from ${sql(`depeche_msgs_${name}`)} where stream = ${stream} order by version`

          yield* appended(itemOf("items", [], { messages: rising(1), metadata: "{\"item\":0}" }))
          const messages = rising(6)
          const [outcomes, functions] = yield* appendedAll(itemsOf("items", messages))
          assert.deepStrictEqual(functions, ["batch"])
          const rows = yield* stored("items")
          assert.deepStrictEqual(rows.map(({ item }) => item), [0, 1, 1, 2, 3, 3, 3])
          assert.deepStrictEqual(
            rows.slice(1).map(({ message_id }) => message_id),
            messages.map((one) => one.messageId)
          )
          assert.deepStrictEqual(
            outcomes.map((outcome) => outcome._tag === "Written" ? [outcome.version, outcome.globalPosition] : []),
            [3, 4, 7].map((version) => [version, rows[version - 1]?.at ?? 0])
          )
          // An id that exists, ids that do not rise, what is asked, tags and another stream are for the other functions.
          const [duplicates, ofDuplicates] = yield* appendedAll(itemsOf("items", messages))
          assert.strictEqual(show(duplicates[0]), `duplicate ${messages[0]?.messageId}`)
          assert.deepStrictEqual(ofDuplicates, ["batch", "append"])
          type Pair = readonly [AppendItem, AppendItem]
          const others: ReadonlyArray<readonly [string, (...pair: Pair) => Pair]> = [
            ["append", (one, two) => [two, one]],
            ["append", (one, two) => [one, { ...two, expectedVersion: 9 }]],
            ["append", (one, two) => [one, { ...two, stream: "others" }]],
            ["decide", (one) => [one, itemOf("items", ["items:1"])]]
          ]
          for (const [by, items] of others) {
            const [one, two] = itemsOf("items", rising(6))
            assert.deepStrictEqual((yield* appendedAll(items(one, two)))[1], [by])
          }
          // Where the stream is held, they wait.
          const release = yield* hold([itemOf("items", [])])
          const waiting = yield* Effect.forkChild(appendedAll(itemsOf("items", rising(6))), { startImmediately: true })
          yield* standsInLine
          assert.isUndefined(waiting.pollUnsafe())
          yield* release
          const [, ofWaiting] = yield* Fiber.join(waiting)
          assert.deepStrictEqual(ofWaiting, ["batch", "append"])
          const versions = (yield* stored("items")).map(({ version }) => version)
          assert.deepStrictEqual(versions, versions.map((_, i) => i + 1))
        }))

      it.effect("that are refused by the stream's version are one statement", () =>
        Effect.gen(function*() {
          yield* appended(itemOf("refused", []))
          for (const messages of [rising(1), rising(2)]) {
            const [outcome, functions] = yield* appended(itemOf("refused", [], { messages, expectedVersion: 0 }))
            assert.strictEqual(outcome, "version 1")
            assert.lengthOf(functions, 1)
            const [none] = yield* appended(itemOf(unique(), [], { messages, expectedVersion: "exists" }))
            assert.strictEqual(none, "version 0")
          }
        }))

      it.effect("are decided by the other functions where an id exists, or ids do not rise, or something is asked", () =>
        Effect.gen(function*() {
          const storage = yield* Storage
          const messages = rising(3)
          const [first] = messages
          yield* appended(itemOf("twice", [], { messages }))
          const duplicate = `duplicate ${first?.messageId}`
          for (const again of [messages.slice(0, 1), messages]) {
            const item = itemOf("twice", [], { messages: again })
            const [outcome, functions] = yield* appended(item)
            assert.strictEqual(outcome, duplicate)
            assert.deepStrictEqual(functions, [again.length === 1 ? "single" : "batch", "append"])
            // A transaction stays usable.
            const [inTransaction, next] = yield* storage.withTransaction(
              Effect.all([appended(item), appended(itemOf("twice", []))])
            )
            assert.strictEqual(inTransaction[0], duplicate)
            assert.include(next[0], "written")
          }
          const falling = itemOf("falling", [], { messages: rising(2).toReversed() })
          assert.deepStrictEqual((yield* appended(falling))[1], ["append"])
          const asking = itemOf("asking", [], { conditions: [nobodyWrote("nobody:1")] })
          assert.deepStrictEqual((yield* appended(asking))[1], ["decide"])
          const seen = itemOf("falling", [], { expectedVersion: 2, expectedPosition: 1 })
          assert.deepStrictEqual((yield* appended(seen))[1], ["append"])
          // It has tried no lock before it waits for all of them.
          const [, functions] = yield* storage.withTransaction(appended(itemOf("tagged", ["x:1", "y:1"])))
          assert.deepStrictEqual(functions, ["decide"])
        }))

      it.effect("write nothing while others have the stream, or a tag", () =>
        Effect.gen(function*() {
          const release = yield* hold([itemOf("busy", ["busy:1"])])
          const items = [itemOf("busy", []), itemOf("free", ["free:1", "busy:1"])]
          const waiting = yield* Effect.forEach(
            items,
            (item) => Effect.forkChild(appended(item), { startImmediately: true })
          )
          yield* appended(itemOf("apart", ["free:1"]))
          assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
          yield* release
          const outcomes = yield* Effect.forEach(
            waiting,
            (fiber) => Effect.map(Fiber.join(fiber), ([outcome]) => outcome)
          )
          assert.strictEqual(outcomes[0], "written 1")
          assert.strictEqual(outcomes[1], "written 1")
        }))

      it.effect("leave no gaps beside a build that does not know these functions, and Python", () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const build = (options: { readonly lean?: boolean; readonly coalesce: boolean }) =>
            Effect.map(
              Layer.build(Layer.fresh(PostgresStorage.layer(name, options))),
              (context) => Context.get(context, Storage)
            )
          const [here, earlier] = [yield* build({ coalesce: false }), yield* build({ coalesce: false, lean: false })]
          const write = (storage: Storage["Service"], messages: ReadonlyArray<EncodedMessage>) =>
            storage.append([itemOf("beside", [], { messages })], { atomic: true })
          const python = sql`select version from ${
            sql(`depeche_write_message_${name}`)
          }(gen_random_uuid(), 'beside'::varchar,
          '{}'::json)`
          yield* Effect.forEach(
            Arr.range(1, 60),
            (i) =>
              Effect.all([
                write(here, rising(1 + i % 3)),
                write(earlier, rising(1 + i % 2)),
                ...(i % 5 === 0 ? [python] : [])
              ]),
            { concurrency: 6, discard: true }
          )
          const [row] = yield* sql<{ readonly dense: boolean; readonly rising: boolean; readonly known: boolean }>`
          select count(*) = max(version) and min(version) = 1 as dense, bool_and(ascends) as rising,
            bool_and(tx is not null) as known
          from (
            select version, tx, global_position > lag(global_position, 1, 0::bigint) over (order by version) as ascends
            from ${sql(`depeche_msgs_${name}`)} where stream = 'beside'
          ) m`
          assert.deepStrictEqual(row, { dense: true, rising: true, known: true })
        }).pipe(Effect.scoped))

      it.effect("of a writer that does not know all tags ask once, and go to those that find them", () =>
        Effect.gen(function*() {
          const storage = yield* Storage
          const { number } = yield* storage.declareTags([
            { type: "T", tag: "t", path: ["t"], typeField: "_tag", isRequired: true }
          ])
          const untagged = (knownTags?: number) =>
            itemOf("late", [], { messages: [message([], "T", "{\"_tag\":\"T\",\"t\":\"1\"}")], knownTags })
          assert.deepStrictEqual((yield* appended(untagged()))[1], ["single", "append"])
          assert.deepStrictEqual((yield* appended(untagged()))[1], ["append"])
          const known = { messages: [message(["t:2"], "T", "{\"_tag\":\"T\",\"t\":\"2\"}")], knownTags: number }
          assert.deepStrictEqual((yield* appended(itemOf("late", [], known)))[1], ["single"])
          const sql = yield* SqlClient.SqlClient
          const tags = yield* sql<{ readonly tag: string }>`
          select tag from ${sql(`effect_message_store_tags_${name}`)} where type = 'T' order by global_position`
          assert.deepStrictEqual(tags.map(({ tag }) => tag), ["t:1", "t:1", "t:2"])
        }))
    }
  )

  layer(
    Layer.provideMerge(
      Layer.provide(PostgresStorage.layer("strict"), Layer.effectDiscard(Migrations.run("strict"))),
      databaseLayer({ startupParameters: { default_transaction_isolation: "repeatable read" } })
    ),
    { excludeTestServices: true }
  )("appends of one item at REPEATABLE READ", (it) => {
    it.effect("fail with an error that is worth a retry where their snapshot is older than the stream", () =>
      Effect.gen(function*() {
        const storage = yield* Storage
        for (const messages of [rising(1), rising(2)]) {
          const stream = unique()
          const [seen, moved] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const failing = yield* Effect.forkChild(Effect.flip(storage.withTransaction(Effect.gen(function*() {
            yield* storage.head(stream) // takes the snapshot
            yield* Deferred.succeed(seen, undefined)
            yield* Deferred.await(moved)
            return yield* storage.append([itemOf(stream, [], { messages })], { atomic: true })
          }))))
          yield* Deferred.await(seen)
          yield* storage.append([itemOf(stream, [])], { atomic: true })
          yield* Deferred.succeed(moved, undefined)
          const failed = yield* Fiber.join(failing)
          assert.strictEqual(failed._tag === "SqlError" && failed.reason._tag, "SerializationError")
        }
      }))
  })
})
