/** Batches of a group commit go on beside one another: of one stream by halves, and large items each by itself. */
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Layer, Result, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { inLine, standsInLine, waitUntil } from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"
import { hold as holdOpen } from "./support/links.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, seat: Schema.Int }) {}

class Beside extends MessageStore.Service<Beside>()("test/Beside", { name: "beside", schema: Booked }) {}

/** What the database lets wait, and what it refuses. */
const slow = 42
const poison = 13

const booked = (seat = 1) => new Booked({ seat })

const prepare = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create function wait_or_refuse() returns trigger language plpgsql as 'begin
    if (new.message->>''seat'')::int = 13 then raise exception ''poison''; end if;
    perform pg_advisory_xact_lock(42);
    return new;
  end'`
  yield* sql`create trigger wait_or_refuse before insert on depeche_msgs_beside
    for each row when ((new.message->>'seat')::int in (13, 42)) execute function wait_or_refuse()`
})

/** Lets what is slow wait, until what is returned is run. */
const holdSlow = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) => holdOpen(sql`select pg_advisory_xact_lock(42)`)
)

/** How many messages of a stream each statement wrote. */
const sizes = (stream: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly count: number }>`select count(*)::int as count from depeche_msgs_beside
        where stream = ${stream} group by tx order by min(version)`,
      (rows) => rows.map(({ count }) => count)
    ))

const seats = Effect.fnUntraced(function*(stream: string) {
  const store = yield* Beside
  const all = yield* Stream.runCollect(store.read(stream))
  assert.deepStrictEqual(all.map(({ version }) => version), all.map((_, i) => i + 1))
  return all.map(({ message }) => message.seat)
})

/**
 * Writes to a stream: one that leaves alone, and behind it 30 that leave together when it has returned, and 30 that wait until
 * these have.
 */
const cohorts = Effect.fnUntraced(function*<A, E, A2, E2>(
  first: (i: number) => Effect.Effect<A, E>,
  second: (i: number) => Effect.Effect<A2, E2>,
  alone: Effect.Effect<unknown, unknown>
) {
  const fork = <B, F>(effect: Effect.Effect<B, F>) => Effect.forkChild(effect, { startImmediately: true })
  const leader = yield* fork(alone)
  const firsts = yield* Effect.forEach(Arr.range(1, 30), (i) => fork(first(i)))
  const seconds = yield* Effect.forEach(Arr.range(1, 30), (i) => fork(second(i)))
  return { leader, firsts, seconds }
})

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(Beside.layer, databaseLayer()), { excludeTestServices: true })("a batch", (it) => {
    it.effect("is prepared", () => prepare)

    it.effect("of a stream is under way when those of the one before have their answers, and they gather behind it", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const write = (seat?: number) => store.write("halves", booked(seat))
        const answered = yield* Deferred.make<void>()
        let answers = 0
        const release = yield* holdSlow
        const { firsts, leader, seconds } = yield* cohorts(
          () =>
            Effect.gen(function*() {
              const { version } = yield* write()
              if (++answers === 30) yield* Deferred.succeed(answered, undefined)
              return [version, (yield* write()).version]
            }),
          () => write(slow),
          write()
        )
        yield* Deferred.await(answered)
        yield* standsInLine
        assert.isTrue([...firsts, ...seconds].every((fiber) => fiber.pollUnsafe() === undefined))
        yield* release
        yield* Fiber.join(leader)
        assert.deepStrictEqual(yield* Effect.forEach(firsts, Fiber.join), Arr.makeBy(30, (i) => [2 + i, 62 + i]))
        assert.deepStrictEqual(
          (yield* Effect.forEach(seconds, Fiber.join)).map(({ version }) => version),
          Arr.range(32, 61)
        )
        assert.deepStrictEqual(yield* sizes("halves"), [1, 30, 30, 30])
      }).pipe(Effect.scoped))

    it.effect("has left when an answer of the one before interrupts one of its fibers; one that waits is not written", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const write = (seat?: number) => store.write("interrupted", booked(seat))
        const victim = yield* Deferred.make<Fiber.Fiber<unknown, unknown>>()
        const interrupted = yield* Deferred.make<void>()
        const { firsts, leader, seconds } = yield* cohorts(
          (i) =>
            Effect.gen(function*() {
              yield* write()
              if (i === 1) {
                yield* Effect.flatMap(Deferred.await(victim), Fiber.interrupt)
                yield* Deferred.succeed(interrupted, undefined)
              }
            }),
          (i) => write(100 + i),
          write()
        )
        yield* Deferred.succeed(victim, seconds[3] as Fiber.Fiber<unknown, unknown>)
        yield* Effect.forEach([leader, ...firsts], Fiber.join)
        const exits = yield* Effect.forEach(seconds, Fiber.await)
        assert.deepStrictEqual(exits.flatMap((exit, i) => Exit.hasInterrupts(exit) ? [i] : []), [3])
        assert.deepStrictEqual((yield* seats("interrupted")).slice(31), Arr.range(101, 130))
      }))

    it.effect("of a stream whose fibers are all interrupted is cancelled, and those behind it go on", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const write = (seat?: number) => store.write("cancelled", booked(seat))
        const release = yield* holdSlow
        const answered = yield* Deferred.make<void>()
        let answers = 0
        const { firsts, leader, seconds } = yield* cohorts(
          (i) =>
            Effect.gen(function*() {
              yield* write()
              if (++answers === 30) yield* Deferred.succeed(answered, undefined)
              return (yield* write(200 + i)).version
            }),
          () => write(slow),
          write()
        )
        yield* Deferred.await(answered)
        yield* standsInLine
        // One that waits, and then all that are under way.
        yield* Fiber.interrupt(firsts[4] as Fiber.Fiber<unknown, unknown>)
        yield* Fiber.interruptAll(seconds)
        yield* waitUntil(Effect.map(inLine, (count) => count === 0))
        yield* Fiber.join(leader)
        const versions = yield* Effect.forEach(Arr.remove(firsts, 4), Fiber.join)
        assert.deepStrictEqual(versions, Arr.range(32, 60))
        yield* release
        assert.deepStrictEqual((yield* seats("cancelled")).slice(31), Arr.remove(Arr.range(201, 230), 4))
      }).pipe(Effect.scoped))

    it.effect("goes on when the one before is lost: its fibers have their failures, and are not written", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const sql = yield* SqlClient.SqlClient
        const release = yield* holdSlow
        const write = (seat?: number) => store.write("lost", booked(seat))
        const { firsts, leader, seconds } = yield* cohorts(
          () => Effect.result(write(slow)),
          () => write(),
          write()
        )
        yield* standsInLine
        yield* sql`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`
        yield* Fiber.join(leader)
        for (const result of yield* Effect.forEach(firsts, Fiber.join)) {
          assert.isTrue(
            Result.isFailure(result) && result.failure._tag === "SqlError" &&
              result.failure.reason._tag === "ConnectionError"
          )
        }
        assert.deepStrictEqual(
          (yield* Effect.forEach(seconds, Fiber.join)).map(({ version }) => version),
          Arr.range(2, 31)
        )
        yield* release
      }).pipe(Effect.scoped))

    it.effect("waits for the one before where that is refused, and its items are sent one by one", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const write = (seat?: number) => store.write("refused", booked(seat))
        const { firsts, leader, seconds } = yield* cohorts(
          (i) => Effect.result(write(i === 7 ? poison : 1)),
          () => write(2),
          write()
        )
        yield* Fiber.join(leader)
        const results = yield* Effect.forEach(firsts, Fiber.join)
        assert.deepStrictEqual(results.flatMap((result, i) => Result.isFailure(result) ? [i + 1] : []), [7])
        yield* Effect.forEach(seconds, Fiber.join)
        assert.deepStrictEqual(yield* seats("refused"), [...Arr.makeBy(30, () => 1), ...Arr.makeBy(30, () => 2)])
      }))

    it.effect("of many messages leaves by itself, beside others, and keeps no small one back", () =>
      Effect.gen(function*() {
        const store = yield* Beside
        const release = yield* holdSlow
        const large = (stream: string) => store.write(stream, Arr.makeBy(64, (i) => booked(i === 0 ? slow : 1)))
        const streams = ["large-1", "large-2", "large-3", "large-4"]
        const fibers = yield* Effect.forEach(
          streams,
          (stream) => Effect.forkChild(large(stream), { startImmediately: true })
        )
        yield* waitUntil(Effect.map(inLine, (count) => count === streams.length))
        // Behind one of the same stream it waits; so does one too many.
        const behind = yield* Effect.forkChild(large("large-1"), { startImmediately: true })
        const small = yield* Effect.forkChild(store.write("large-2", booked()), { startImmediately: true })
        for (let i = 0; i < 3; i++) assert.strictEqual((yield* store.write("small", booked())).version, i + 1)
        assert.isTrue([...fibers, behind, small].every((fiber) => fiber.pollUnsafe() === undefined))
        yield* release
        for (const { version } of yield* Effect.forEach(fibers, Fiber.join)) assert.strictEqual(version, 64)
        assert.strictEqual((yield* Fiber.join(behind)).version, 128)
        assert.strictEqual((yield* Fiber.join(small)).version, 65)
      }).pipe(Effect.scoped))
  })
})
