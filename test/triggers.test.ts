/** Triggers and policies of the application's on the table of messages: what they refuse is told, nothing is lost in silence. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Exit, Layer, Predicate } from "effect"
import type { Array as Arr } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient, type SqlError } from "effect/sql"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type AppendItem, type EncodedMessage, Storage, type StreamDefinition } from "../src/Storage.ts"
import { itemOf, message, name, nobodyWrote, storageLayer, unique } from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

const table = `depeche_msgs_${name}`

type Items = Arr.NonEmptyReadonlyArray<AppendItem>

/** Messages, some with data of their own; their ids rise unless they shall not. */
const messages = (
  data: ReadonlyArray<string>,
  tags: ReadonlyArray<string> = [],
  falls = false
): ReadonlyArray<EncodedMessage> => {
  const ids = data.map(unique).toSorted()
  if (falls) ids.reverse()
  return data.map((text, i) => ({ ...message(tags, "A", text), messageId: ids[i] ?? "" }))
}

type Data = Arr.NonEmptyReadonlyArray<string>

/** One way to append for each function, and each way in it: to a stream, by the data of messages. */
const ways: ReadonlyArray<readonly [way: string, items: (stream: string, data: Data) => Items]> = [
  ["one message", (stream, [one]) => [itemOf(stream, [], { messages: messages([one]) })]],
  ["one message with tags", (stream, [one]) => [itemOf(stream, [], { messages: messages([one], [`t:${unique()}`]) })]],
  ["messages of a stream", (stream, all) => [itemOf(stream, [], { messages: messages(all) })]],
  ["messages with tags", (stream, all) => [itemOf(stream, [], { messages: messages(all, [`t:${unique()}`]) })]],
  ["messages whose ids do not rise", (stream, all) => [itemOf(stream, [], { messages: messages(all, [], true) })]],
  ["messages of two streams", (stream, all) => [
    itemOf(`${stream}-${unique()}`, []),
    itemOf(stream, [], { messages: messages(all) })
  ]],
  ["one message on a condition", (stream, [one]) => [
    itemOf(stream, [], { messages: messages([one]), conditions: [nobodyWrote(unique())] })
  ]],
  ["messages on a condition", (stream, all) => [
    itemOf(stream, [], { messages: messages(all, [`t:${unique()}`]), conditions: [nobodyWrote(unique())] })
  ]]
]

const append = (items: Items) => Effect.flatMap(Storage, (storage) => storage.append(items, { atomic: true }))

const storedOf = Effect.fnUntraced(function*(items: Items) {
  const sql = yield* SqlClient.SqlClient
  const ids = items.flatMap((item) => item.messages.map(({ messageId }) => messageId))
  return (yield* sql`select from ${sql(table)} where message_id = any(${ids}::uuid[])`).length
})

const statements = (texts: ReadonlyArray<string>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.forEach(texts, (text) => sql.unsafe(text).unprepared, { discard: true })
  )

const causeOf = ({ reason: { cause } }: SqlError.SqlError) => ({
  code: Predicate.hasProperty(cause, "code") ? cause.code : undefined,
  message: Predicate.hasProperty(cause, "message") ? String(cause.message) : ""
})

const itemsOfMany = (): ReadonlyArray<Items> =>
  Array.from({ length: 8 }, () => [itemOf(unique(), [], { messages: messages([kept]) })] as const)

const kept = "{\"keep\":1}"
const dropped = "{\"drop\":1}"

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(storageLayer, databaseLayer()), { excludeTestServices: true })(
    "with triggers on the messages",
    (it) => {
      it.effect("refuses to append where one leaves messages out", () =>
        Effect.gen(function*() {
          yield* statements([
            `create function leave_out() returns trigger language plpgsql as $$ begin
              return case when new.message ->> 'drop' is null then new end;
            end $$`,
            `create trigger leaves_out before insert on ${table} for each row execute function leave_out()`
          ])
          for (const [way, itemsOf] of ways) {
            const all = itemsOf(unique(), [kept, kept])
            yield* append(all)
            assert.strictEqual(yield* storedOf(all), all.flatMap((item) => item.messages).length, way)
            const isOne = all.every((item) => item.messages.length === 1)
            for (const left of isOne ? [0] : [0, 1, 2]) {
              const data: Data = [left === 0 ? dropped : kept, left === 1 ? dropped : kept, left === 2 ? dropped : kept]
              const items = itemsOf(unique(), data)
              const error = yield* Effect.flip(append(items))
              assert.include(causeOf(error).message, "trigger", way)
              assert.strictEqual(yield* storedOf(items), 0, way)
            }
          }
          const sql = yield* SqlClient.SqlClient
          const python = yield* Effect.flip(sql`select version from ${sql(`depeche_write_message_${name}`)}(
            gen_random_uuid(), 'python'::varchar, '{"drop":1}'::json)`)
          assert.include(causeOf(python).message, "trigger")
          assert.notStrictEqual(causeOf(python).code, "P0001") // Python would read it as a wrong version
          yield* statements([`drop trigger leaves_out on ${table}`])
        }))

      it.effect("tells a unique violation of theirs as it is", () =>
        Effect.gen(function*() {
          yield* statements([
            "create table names (name text constraint one_of_a_name primary key)",
            `create function take_name() returns trigger language plpgsql as $$ begin
              insert into names select new.message ->> 'name' where new.message ->> 'name' is not null;
              return null;
            end $$`,
            `create trigger takes_names after insert on ${table} for each row execute function take_name()`
          ])
          yield* append([itemOf(unique(), [], { messages: messages(["{\"name\":\"a\"}"]) })])
          for (const [way, itemsOf] of ways) {
            const items = itemsOf(unique(), ["{\"name\":\"a\"}", kept])
            const { reason } = yield* Effect.flip(append(items))
            assert.strictEqual(reason._tag === "UniqueViolation" && reason.constraint, "one_of_a_name", way)
            assert.strictEqual(yield* storedOf(items), 0, way)
          }
          yield* statements([`drop trigger takes_names on ${table}`])
        }))

      it.effect("tells what they refuse at the commit", () =>
        Effect.gen(function*() {
          yield* statements([
            `create function refuse() returns trigger language plpgsql as $$ begin
              raise exception 'not today' using errcode = 'check_violation';
            end $$`,
            `create constraint trigger refuses after insert on ${table} deferrable initially deferred
              for each row execute function refuse()`
          ])
          const storage = yield* Storage
          for (const [way, itemsOf] of ways) {
            const items = itemsOf(unique(), [kept, kept])
            assert.strictEqual(causeOf(yield* Effect.flip(append(items))).message, "not today", way)
            assert.strictEqual(yield* storedOf(items), 0, way)
          }
          // Those that leave together fail each for itself, and so does a transaction.
          const together = itemsOfMany()
          for (
            const error of yield* Effect.forEach(together, (items) => Effect.flip(append(items)), { concurrency: 8 })
          ) {
            assert.strictEqual(causeOf(error).message, "not today")
          }
          const items = [itemOf(unique(), [])] as const
          assert.isTrue(Exit.isFailure(yield* Effect.exit(storage.withTransaction(append(items)))))
          assert.strictEqual(yield* storedOf([...items, ...together.flat()] as unknown as Items), 0)
          yield* statements([`drop trigger refuses on ${table}`])
        }))
    }
  )

  it.live("with rows that are hidden from a role refuses what it writes behind them, and to project and to handle", () =>
    Effect.gen(function*() {
      yield* createRole("esm_partial")
      yield* Effect.provide(append([itemOf("theirs", [])]), storageLayer)
      yield* statements([
        "grant all on all tables in schema public to esm_partial",
        "grant all on all sequences in schema public to esm_partial",
        `alter table ${table} enable row level security`,
        `create policy see on ${table} for select to esm_partial using (stream like 'mine%')`,
        `create policy add on ${table} for insert to esm_partial with check (true)`
      ])
      const { layer: client } = yield* Clients
      const asRole = <A, E>(effect: Effect.Effect<A, E, Storage | SqlClient.SqlClient>) =>
        Effect.provide(
          effect,
          Layer.fresh(
            Layer.provideMerge(PostgresStorage.layer(name, { migrate: false }), client({ role: "esm_partial" }))
          )
        )
      yield* asRole(Effect.gen(function*() {
        for (const [way, itemsOf] of ways) {
          const [written] = (yield* append(itemsOf("mine", [kept, kept]))).slice(-1)
          assert.strictEqual(written?._tag, "Written", way)
          yield* Effect.flip(append(itemsOf("theirs", [kept, kept])))
        }
      }))
      const sql = yield* SqlClient.SqlClient
      assert.lengthOf(yield* sql`select from ${sql(table)} where stream = 'theirs'`, 1)

      const definition: StreamDefinition = { name: "all", patterns: ["%"], partitioner: Partitioner.constant(1) }
      const open = Effect.flatMap(Storage, (storage) => storage.aggregatedStream(definition))
      yield* Effect.provide(Effect.flatMap(open, (stream) => stream.subscription("handled")), storageLayer)
      yield* statements([
        "grant all on all tables in schema public to esm_partial",
        "grant all on all sequences in schema public to esm_partial"
      ])
      const failure = Effect.match({ onFailure: String, onSuccess: () => "none" })
      const failures = asRole(Effect.gen(function*() {
        const stream = yield* open
        return [
          yield* failure(stream.project === undefined ? Effect.die("it is in SQL") : stream.project(10)),
          yield* failure(stream.scan(undefined, 10)),
          yield* failure(stream.subscription("handled"))
        ]
      }))
      const none = ["none", "none", "none"]
      for (const told of yield* failures) assert.include(told, "row-level security may hide rows")
      yield* statements([`create policy see_all on ${table} for select using (true)`])
      assert.deepStrictEqual(yield* failures, none)
      yield* statements([`create policy but on ${table} as restrictive for select using (stream like 'mine%')`])
      for (const told of yield* failures) assert.include(told, "row-level security may hide rows")
      yield* statements([`alter table ${table} disable row level security`])
      assert.deepStrictEqual(yield* failures, none)
      yield* statements([`alter table effect_message_store_settings_${name} enable row level security`])
      assert.include(String(yield* Effect.flip(failures)), "row-level security hides the row of")
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(sharedDatabaseLayer))))
})
