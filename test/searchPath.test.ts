/**
 * A role that may create objects in a schema on the path makes better matches for the functions and operators that the
 * library uses. None of them may ever run with the rights of those who write, read and project.
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, Schedule, Schema, Stream } from "effect"
import {
  type AggregatedStream,
  Archive,
  Decision,
  Fold,
  Message,
  MessageStore,
  Partitioner,
  Projection
} from "effect-message-store"
import { SqlClient } from "effect/sql"
import { forgotten, operated, toBeOperated } from "./support/forgottenAndOperated.ts"
import { moved } from "./support/links.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"
import { Moved } from "./support/transfers.ts"

class Hosts extends MessageStore.Service<Hosts>()("test/Hosts", { name: "hosts", schema: Moved }) {}

/** The same store, in a process that decides. */
class Parted extends Schema.TaggedClass<Parted>()("Parted", {
  ...Message.fields,
  from: Message.tag("place", Schema.String),
  to: Message.tag("place", Schema.String),
  number: Message.tag("number", Schema.Int)
}) {}
class DecidingHosts extends MessageStore.Service<DecidingHosts>()("test/DecidingHosts", {
  name: "hosts",
  cachedStates: 0,
  schema: Schema.Union([Moved, Parted])
}) {}

/** Decides on snapshots; those that are to be written are, when the layer closes. Tells how many messages were folded. */
const decidedOnSnapshots = Effect.gen(function*() {
  let folded = 0
  const count = Fold.withSnapshot(
    { initial: 0, evolve: (sofar: number) => (folded++, sofar + 1) },
    { name: "count", schema: Schema.Number, every: 1 }
  )
  const decidedOnce = Effect.gen(function*() {
    const hosts = yield* DecidingHosts
    yield* hosts.update("p", count, () => Effect.succeed([]))
    const sources = { q: Decision.stream("q", count), all: Decision.tagged([{ place: "a" }, { number: 2 }], count) }
    yield* hosts.decide(sources, () => [])
  })
  const saved = Effect.provide(decidedOnce, Layer.fresh(DecidingHosts.layer))
  yield* saved
  const first = folded
  yield* Effect.provide(
    Effect.flatMap(DecidingHosts, (hosts) => hosts.write("p", new Parted({ from: "a", to: "b", number: 10 }))),
    Layer.fresh(DecidingHosts.layer)
  )
  yield* saved
  const second = folded
  // A write that expects the message which the state ended with.
  const parted = new Parted({ from: "a", to: "b", number: 11 })
  yield* Effect.provide(
    Effect.flatMap(DecidingHosts, (hosts) =>
      Effect.andThen(
        hosts.update("q", count, () => Effect.succeed(parted)),
        hosts.update("z", count, () => Effect.succeed([]))
      )),
    Layer.fresh(DecidingHosts.layer)
  )
  return [first > 6, second - first]
})

/** Archived, deleted, and imported again, with tags. */
const archived = Effect.gen(function*() {
  const hosts = yield* DecidingHosts
  yield* hosts.write("archived", [new Parted({ from: "c", to: "d", number: 90 }), moved()])
  const archive = Archive.of(hosts)
  const before = DateTime.makeUnsafe("2100-01-01T00:00:00Z")
  const text = Stream.fromIterable(
    yield* Stream.runCollect(archive.export({ pattern: "archiv%", toVersion: 2, before }))
  )
  for (const skipped of [2, 0]) {
    assert.deepStrictEqual(yield* Stream.runCollect(archive.import(text)), [{ messages: 2, skipped, total: 2 }])
    const deleted = { messages: 2, deleted: 2, total: 2 }
    if (skipped > 0) assert.deepStrictEqual(yield* Stream.runCollect(archive.delete(text)), [deleted])
  }
  assert.strictEqual(yield* Stream.runCount(hosts.readTagged({ number: 90 })), 1)
})

/** Tags what was stored, while one who knows no tags writes. */
class Tracked extends Schema.TaggedClass<Tracked>()("Moved", {
  ...Message.fields,
  amount: Message.tag("amount", Schema.Int)
}) {}
class TrackingHosts extends MessageStore.Service<TrackingHosts>()("test/TrackingHosts", {
  name: "hosts",
  schema: Tracked
}) {}
const tagged = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [tracking, hosts] = [yield* TrackingHosts, yield* Hosts]
  yield* Stream.runDrain(tracking.tagging())
  const before = yield* Stream.runCount(tracking.readTagged({ amount: 3 }))
  yield* hosts.write("t", [moved(3), moved(3)])
  yield* hosts.writeAll([{ stream: "t", messages: moved(3) }, { stream: "u", messages: moved(4) }])
  const { messageId } = moved()
  const json = {
    _tag: "Moved",
    messageId,
    occurredAt: "2026-01-01T00:00:00.000Z",
    amount: 3,
    note: "\0",
    at: [[3, "x"]]
  }
  yield* sql`select version from depeche_write_message_hosts(${messageId}::uuid, 't'::varchar,
    ${JSON.stringify(json)}::text::json)`
  assert.strictEqual(yield* Stream.runCount(tracking.readTagged({ amount: 3 })), before + 4)
  const refused = sql`select version from depeche_write_message_hosts(gen_random_uuid(), 't'::varchar,
    ${JSON.stringify({ ...json, amount: [[1.5]] })}::text::json)`
  assert.include(
    String(Object((yield* Effect.flip(refused)).reason.cause).message),
    "a message of type Moved cannot be stored"
  )
})

/** Decides on streams, and on one and on several tags; and in conflict, and in vain. */
const decided = Effect.gen(function*() {
  const hosts = yield* DecidingHosts
  const count = { initial: 0, evolve: (sofar: number) => sofar + 1 }
  const parted = (number: number) => new Parted({ from: "a", to: "b", number })
  const first = parted(1)
  yield* hosts.write("p", first)
  yield* hosts.write("p", [parted(2), parted(3)])
  const sources = {
    p: Decision.stream("p", count),
    q: Decision.stream("q", count),
    all: Decision.tagged([{ place: "a" }, { number: 2, place: "b" }], count),
    some: Decision.tagged({ number: 3 }, count, { types: ["Parted"] })
  }
  let tries = 0
  yield* hosts.decide(sources, (states) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(states, { p: 3, q: 0, all: 3 + tries, some: 1 })
      if (tries++ === 0) yield* Effect.orDie(hosts.write("r", parted(9)))
      return { stream: "q", messages: [parted(4), parted(5)] }
    }))
  yield* hosts.decide(sources, ({ all }) => ({ stream: "p", messages: parted(all) }))
  const duplicate = hosts.decide(sources, () => [
    { stream: "q", messages: parted(6) },
    { stream: "p", messages: [parted(7), first] }
  ])
  assert.strictEqual((yield* Effect.flip(duplicate))._tag, "DuplicateMessageError")
  const found = hosts.readTagged([{ place: "a", number: 4 }, { number: 1 }], {
    types: ["Parted"],
    direction: "backward"
  })
  assert.lengthOf(yield* Stream.runCollect(found), 2)
})

const types = [
  "text",
  "varchar",
  "name",
  "int",
  "bigint",
  "numeric",
  "float8",
  "boolean",
  "oid",
  "uuid",
  "json",
  "jsonb",
  "bytea",
  "timestamp",
  "timestamptz",
  "interval",
  "xid8",
  "pg_snapshot",
  "text[]",
  "varchar[]",
  "int[]",
  "bigint[]",
  "boolean[]",
  "uuid[]",
  "jsonb[]",
  "timestamptz[]",
  "xid8[]"
]

const operators = ["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "~~", "->", "->>", "#>", "#>>"]

/** Every name of a function that the text of one of our functions mentions, or a query of the client. */
const trap = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const made = (text: string) => sql.unsafe(text).unprepared
  yield* made(`create function public.trap(l text, r text) returns void language plpgsql as $$
    begin raise exception 'a trap: % of %', l, r using errcode = 'XX999'; end $$`)
  yield* made(`do $trap$
    declare
      _types constant text[] := array[${types.map((type) => `'${type}'`).join(",")}];
      _name text;
      _left text;
      _right text;
      _operator text;
    begin
      for _name in
        select distinct given[1] from (
          select pg_get_functiondef(p.oid) as body from pg_proc p
          where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and p.proname <> 'trap'
        ) ours cross join lateral regexp_matches(ours.body, '([a-z_0-9]+)\\(', 'g') given
        where exists (select from pg_proc c where c.proname = given[1] and c.pronamespace = 'pg_catalog'::regnamespace)
        union select unnest('{sum,max,min,count,coalesce_,pg_column_size,octet_length,unnest,array_agg}'::text[])
      loop
        foreach _left in array _types loop
          execute format('create function public.%I(%s) returns text language plpgsql as
            $f$ begin perform public.trap(%L, %L); return null; end $f$', _name, _left, _name, _left);
          foreach _right in array array['text', 'int', 'bigint', _left] loop
            if to_regprocedure(format('public.%I(%s, %s)', _name, _left, _right)) is null then
              execute format('create function public.%I(%s, %s) returns text language plpgsql as
                $f$ begin perform public.trap(%L, %L); return null; end $f$', _name, _left, _right, _name, _left);
            end if;
          end loop;
        end loop;
      end loop;
      foreach _left in array _types loop
        foreach _right in array _types loop
          execute format('create function public.trapped(%1$s, %2$s) returns boolean language plpgsql as
            $f$ begin perform public.trap(%3$L, %4$L); return null; end $f$', _left, _right, _left, _right);
          foreach _operator in array array[${operators.map((operator) => `'${operator}'`).join(",")}] loop
            execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.trapped)',
              _operator, _left, _right);
          end loop;
        end loop;
      end loop;
    end $trap$`)
})

/** Handles all that is linked, by both kinds of claims and deliveries; some of it is parked, halted, reset. */
const consumed = Effect.fnUntraced(function*(stream: AggregatedStream.AggregatedStream<Moved>) {
  for (const delivery of ["atLeastOnce", "transactional"] as const) {
    const subscription = yield* stream.subscription({
      name: `${stream.name}_${delivery === "transactional" ? "tx" : "alo"}`,
      delivery,
      claims: delivery === "transactional" ? { lease: "10 seconds" } : "session",
      retry: Schedule.recurs(0)
    })
    const caughtUp = Effect.repeat(subscription.lag, {
      until: (lag) => lag === 0,
      schedule: Schedule.spaced("5 millis")
    })
    const handled = (handler: () => Effect.Effect<void, string>) =>
      Effect.raceFirst(subscription.run(handler), caughtUp)
    yield* handled(() => Effect.fail("no"))
    const { messages } = yield* stream.statistics
    assert.lengthOf(yield* subscription.parked, messages)
    assert.deepStrictEqual(yield* subscription.replay(() => Effect.void), { handled: messages, failed: 0 })
    yield* subscription.reset("beginning")
    assert.strictEqual(yield* subscription.lag, messages)
    yield* handled(() => Effect.void)
    for (const { checkpoint, position } of yield* subscription.status) assert.strictEqual(checkpoint, position)
    yield* subscription.drop
  }
})

/** A read model in two versions, with columns of other names. */
const modelled = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const hosts = yield* DecidingHosts
  const stream = yield* hosts.aggregatedStream({
    name: "modelled",
    patterns: "scheduled",
    partitioner: Partitioner.constant(1)
  })
  const version = (number: number, columns: string) =>
    stream.projection({
      name: "model",
      version: number,
      keep: "1 hour",
      model: Projection.tables(["model"], ({ model }) =>
        sql.unsafe(`create table ${model} (${columns}, handled int)`).unprepared)
    })
  return { stream, versions: [yield* version(1, "a int"), yield* version(2, "b int")] as const }
})

/** Schedules, moves and cancels messages; promotes, puts back and drops versions of a read model. */
const scheduledAndProjected = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const hosts = yield* DecidingHosts
  const at = DateTime.makeUnsafe(0)
  yield* hosts.schedule("scheduled", moved(), { at, key: "one" })
  yield* hosts.schedule("scheduled", new Parted({ from: "x", to: "y", number: 77 }), { at })
  yield* hosts.schedule("scheduled", moved(), { at, key: "other" })
  assert.isTrue(yield* hosts.cancel("other"))
  assert.strictEqual(yield* hosts.scheduler.runOnce, 2)

  const { stream, versions: [first, second] } = yield* modelled
  yield* stream.projector.runOnce
  assert.lengthOf(yield* Stream.runCollect(Stream.take(stream.follow({ from: "beginning" }), 2)), 2)
  for (const each of [first, second]) {
    const handling = each.run((deliveries, { model }) =>
      sql.unsafe(`insert into ${model} (handled) values (${deliveries.length})`).unprepared
    )
    yield* Effect.raceFirst(handling, Stream.runDrain(each.progress))
    yield* each.waitUntilProcessed((yield* hosts.head("scheduled")).globalPosition ?? 0, "10 seconds")
  }
  assert.strictEqual(yield* second.rollback(), 1)
  yield* second.promote(2)
  yield* second.drop(1)
  assert.deepStrictEqual((yield* second.status).map(({ handled, state }) => [handled, state]), [[2, "promoted"]])
  yield* second.dropAll
})

describe("PostgreSQL", () => {
  it.live("runs no function or operator that somebody else has put on the search path", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { layer } = yield* Clients
      yield* createRole("hostile_creator")
      yield* sql`grant create, usage on schema public to hostile_creator`
      // Made before the traps are, so that those know the names of all functions that ours call.
      const projections = [
        { name: "by_field", patterns: ["a", "b%"], partitioner: Partitioner.field("amount", 3) },
        { name: "by_stream", patterns: "%", partitioner: Partitioner.streamName(4) },
        { name: "as_python", patterns: "%", partitioner: Partitioner.depeche },
        { name: "in_code", patterns: "%", partitioner: () => 5 }
      ] as const
      const opened = Effect.gen(function*() {
        const hosts = yield* Hosts
        return yield* Effect.forEach(projections, (definition) => hosts.aggregatedStream(definition))
      })
      yield* Effect.provide(opened, Layer.fresh(Hosts.layer))
      yield* Effect.provide(modelled, Layer.fresh(DecidingHosts.layer))
      yield* toBeOperated
      yield* Effect.provide(trap, layer({ role: "hostile_creator" }))

      yield* Effect.gen(function*() {
        const hosts = yield* Hosts
        const first = moved()
        yield* hosts.write("a", first)
        yield* hosts.write("a", [moved(), moved()], { expectedVersion: 1 })
        yield* hosts.writeAll([
          { stream: "a", messages: moved(), expectedVersion: "exists" },
          { stream: "b", messages: [moved(), moved()] },
          { stream: "a", messages: moved() }
        ])
        // Together, from fibers that know nothing of each other.
        yield* Effect.forEach(Array.from({ length: 20 }), (_, i) => hosts.write(`c-${i % 3}`, moved()), {
          concurrency: "unbounded"
        })
        const duplicates: ReadonlyArray<Effect.Effect<unknown, MessageStore.WriteError>> = [
          hosts.write("a", first),
          hosts.writeAll([{ stream: "a", messages: moved() }, { stream: "a", messages: [moved(), first] }])
        ]
        for (const duplicate of duplicates) {
          assert.strictEqual((yield* Effect.flip(duplicate))._tag, "DuplicateMessageError")
        }
        assert.strictEqual(
          (yield* Effect.flip(hosts.write("a", moved(), { expectedVersion: 1 })))._tag,
          "OptimisticConcurrencyError"
        )
        const { messageId } = moved()
        yield* sql`select version from depeche_write_message_hosts(${messageId}::uuid, 'a'::varchar,
          ${
          JSON.stringify({ _tag: "Moved", messageId, occurredAt: "2026-01-01T00:00:00.000Z", amount: 1 })
        }::text::json,
          5::bigint)`
        assert.strictEqual((yield* hosts.head("a")).version, 6)
        assert.lengthOf(yield* Stream.runCollect(hosts.read("a")), 6)
        yield* Effect.scoped(Effect.gen(function*() {
          const reader = yield* hosts.reader
          assert.lengthOf(yield* Stream.runCollect(reader.readWildcard("%")), 28)
          assert.lengthOf(yield* reader.getMessagesByIds([first.messageId, messageId]), 2)
        }))
        assert.strictEqual((yield* hosts.synchronize("d", [first]).pipe(Effect.flip))._tag, "DuplicateMessageError")
        let messages = 28
        for (const stream of yield* opened) {
          const { linked } = yield* stream.projector.runOnce
          assert.strictEqual(linked, messages - (stream.name === "by_field" ? 20 : 0))
          assert.strictEqual((yield* stream.statistics).messages, linked)
          for (const { partition, position } of yield* stream.partitions) {
            assert.lengthOf(yield* Stream.runCollect(stream.read(partition)), position + 1)
          }
          yield* hosts.write("b", moved())
          messages++
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* consumed(stream)
        }
      }).pipe(Effect.provide(Layer.fresh(Hosts.layer)))
      yield* Effect.provide(decided, Layer.fresh(DecidingHosts.layer))
      yield* Effect.provide(tagged, [Layer.fresh(TrackingHosts.layer), Layer.fresh(Hosts.layer)])
      yield* Effect.provide(scheduledAndProjected, Layer.fresh(DecidingHosts.layer))
      // The message that was added is folded on the snapshot of its stream, and on that of its tags.
      assert.deepStrictEqual(yield* decidedOnSnapshots, [true, 2])
      yield* Effect.provide(archived, Layer.fresh(DecidingHosts.layer))
      yield* forgotten
      yield* operated
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(sharedDatabaseLayer))))
})
