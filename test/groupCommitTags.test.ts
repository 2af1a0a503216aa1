/** Appends with tags and conditions that leave together have the outcomes they would have had alone, and wait for nobody else. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import { Arbitrary, Array as Arr, DateTime, Deferred, Effect, Exit, Fiber, Layer, Result, Schema, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type AppendItem, type AppendOutcome, type EncodedMessage, Storage, type TagCondition } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"

const name = "together"
const storageLayer = Layer.provideMerge(PostgresStorage.layer(name), Layer.effectDiscard(Migrations.run(name)))

const message = (tags: ReadonlyArray<string> = [], type = "A", data = "{}"): EncodedMessage => ({
  messageId: globalThis.crypto.randomUUID(),
  occurredAt: DateTime.makeUnsafe(0),
  data,
  tagged: Arr.isReadonlyArrayNonEmpty(tags) ? { type, tags } : undefined
})

const itemOf = (stream: string, tags: ReadonlyArray<string>, options?: Partial<AppendItem>): AppendItem => ({
  stream,
  expectedVersion: undefined,
  metadata: "{}",
  messages: [message(tags)],
  ...options
})

/** That nobody has written a tag. */
const nobodyWrote = (tag: string): TagCondition => ({ tags: [tag], types: undefined, after: 0 })

const unique = (): string => globalThis.crypto.randomUUID()

const append = (item: AppendItem) =>
  Effect.flatMap(
    Storage,
    (storage) => Effect.map(storage.append([item], { atomic: true }), ([outcome]) => outcome as AppendOutcome)
  )

const waitUntil = (condition: Effect.Effect<boolean, unknown, SqlClient.SqlClient>) =>
  Effect.gen(function*() {
    while (!(yield* condition)) yield* Effect.yieldNow
  })

/** How many sessions wait for a lock of the database. */
const inLine = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  return (yield* sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
    .length
})
const standsInLine = waitUntil(Effect.map(inLine, (count) => count > 0))

/** Has the locks of items in an open transaction, which is rolled back by what is returned. */
const hold = Effect.fnUntraced(function*(items: ReadonlyArray<AppendItem>) {
  const storage = yield* Storage
  const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
  const holder = yield* Effect.forkChild(Effect.flip(storage.withTransaction(Effect.gen(function*() {
    if (Arr.isReadonlyArrayNonEmpty(items)) yield* storage.append(items, { atomic: true })
    yield* Deferred.succeed(held, undefined)
    yield* Deferred.await(release)
    return yield* Effect.fail("rolled back")
  }))))
  yield* Deferred.await(held)
  return Effect.andThen(Deferred.succeed(release, undefined), Fiber.join(holder))
})
const holdTags = (tags: ReadonlyArray<string>) => hold(tags.map((tag) => itemOf(unique(), [tag])))

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

const live = { excludeTestServices: true }
const poison = "{\"poison\":true}"

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(storageLayer, databaseLayer()), live)("appends with tags and conditions", (it) => {
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
          const first = stored.findIndex(({ messageId }) => item.messages.some((each) => each.messageId === messageId))
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

    it.effect("leave in far fewer statements than there are, those of one tag too", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tag = unique()
        const item = (i: number) =>
          i % 2 === 0
            ? itemOf(`few-${i}`, [tag, `few:${i}`])
            : itemOf(`few-${i}`, [`few:${i}`], { conditions: [nobodyWrote(`few:${i}`), nobodyWrote(`none:${i}`)] })
        const outcomes = yield* Effect.forEach(Arr.range(1, 300), (i) => append(item(i)), { concurrency: "unbounded" })
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
        const [row] = yield* sql<{ readonly statements: number }>`
          select count(distinct tx)::int as statements from depeche_msgs_together where stream like 'few-%'`
        assert.isBelow(row?.statements ?? 0, 20)
      }))

    it.effect("of one stream keep their order, whether they have tags or not", () =>
      Effect.gen(function*() {
        const stream = unique()
        const outcomes = yield* Effect.forEach(
          Arr.range(1, 200),
          (i) => append(itemOf(stream, i % 3 === 0 ? [`order:${i % 4}`] : [])),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag === "Written" ? outcome.version : 0),
          Arr.range(1, 200)
        )
      }))

    it.effect("wait for nobody's tags but their own", () =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const [tag, other, stream] = [unique(), unique(), unique()]
        const release = yield* holdTags([tag])
        const waiting = yield* Effect.forEach(
          [
            ...Arr.makeBy(20, () => itemOf(unique(), [tag, other])),
            ...Arr.makeBy(10, () => itemOf(unique(), [other], { conditions: [{ ...nobodyWrote(tag), types: ["B"] }] })),
            itemOf(stream, [tag])
          ],
          (item) => Effect.forkChild(append(item), { startImmediately: true })
        )
        yield* standsInLine
        // Disjoint tags, what is asked about others, and plain writes go through; so does a tag that those who wait need too.
        const free = yield* Effect.forEach(Arr.range(1, 200), (i) =>
          append(
            i % 4 === 0
              ? itemOf(unique(), [])
              : i % 4 === 1
              ? itemOf(unique(), [`free:${i}`], { conditions: [nobodyWrote(`free:${i}`), nobodyWrote(unique())] })
              : i % 4 === 2
              ? itemOf(unique(), [`free:${i}`, other])
              : itemOf(unique(), [], { conditions: [{ ...nobodyWrote(other), types: ["B"] }] })
          ), { concurrency: 50 })
        assert.isTrue(free.every(({ _tag }) => _tag === "Written"))
        // Nor does it keep others from the stream, or from its other tags, that it waits in line.
        yield* storage.append([itemOf(stream, []), itemOf(unique(), [other])], { atomic: true })
        assert.strictEqual(yield* inLine, 1)
        const asking = yield* holdTags([other])
        assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
        yield* asking
        yield* release
        const outcomes = yield* Effect.forEach(waiting, Fiber.join)
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
        assert.strictEqual(yield* inLine, 0)
      }))

    it.effect("that are interrupted while they wait for a tag leave nothing, and let those behind them go", () =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const [tag, stream] = [unique(), unique()]
        const release = yield* holdTags([tag])
        const first = yield* Effect.forkChild(append(itemOf(stream, [tag])), { startImmediately: true })
        const behind = yield* Effect.forkChild(append(itemOf(stream, [])), { startImmediately: true })
        const last = yield* Effect.forkChild(append(itemOf(unique(), [tag])), { startImmediately: true })
        yield* standsInLine
        assert.isUndefined(behind.pollUnsafe())
        yield* Fiber.interrupt(first)
        assert.deepInclude(yield* Fiber.join(behind), { _tag: "Written", version: 1 })
        assert.isUndefined(last.pollUnsafe())
        yield* Fiber.interrupt(last)
        yield* waitUntil(Effect.map(inLine, (count) => count === 0))
        yield* release
        assert.strictEqual((yield* storage.ends([], [tag])).tags[0], 0)
        assert.strictEqual((yield* append(itemOf(stream, [tag])))._tag, "Written")
        assert.strictEqual((yield* storage.head(stream)).version, 2)
      }))

    it.effect("wait for each of their tags in turn", () =>
      Effect.gen(function*() {
        const tags = Arr.makeBy(4, unique)
        const releases = yield* Effect.forEach(tags, (tag) => holdTags([tag]))
        const waiting = yield* Effect.forkChild(append(itemOf(unique(), tags)), { startImmediately: true })
        for (const release of releases) {
          yield* standsInLine
          assert.isUndefined(waiting.pollUnsafe())
          yield* release
        }
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Written")
      }))
  })

  const client: Readonly<Record<string, { readonly maxConnections?: number; readonly multiplex?: boolean }>> = {
    "a pool of 2": { maxConnections: 2 },
    "multiplexed connections": { multiplex: true }
  }
  for (const [title, options] of Object.entries(client)) {
    it.live(`with ${title}, tags that others hold block nobody else`, () =>
      Effect.gen(function*() {
        const tags = Arr.makeBy(12, unique)
        // Held from outside of the pool.
        const elsewhere = Layer.provideMerge(
          PostgresStorage.layer(name),
          PgClient.layer({ ...(yield* PgClient.PgClient).config, maxConnections: 2 })
        )
        const release = yield* Effect.provide(holdTags(tags), yield* Layer.build(Layer.fresh(elsewhere)))
        const waiting = yield* Effect.forEach([...tags, ...tags], (tag) =>
          Effect.forkChild(append(itemOf(unique(), [tag])), { startImmediately: true }))
        yield* Effect.provide(standsInLine, yield* Layer.build(Layer.fresh(elsewhere)))
        for (let i = 0; i < 50; i++) {
          yield* Effect.forEach([[], ["a"], ["b"]], (free) =>
            append(itemOf(unique(), free)), {
            concurrency: "unbounded"
          })
        }
        assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
        assert.strictEqual(yield* inLine, 1)
        yield* release
        const outcomes = yield* Effect.forEach(waiting, Fiber.join)
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(storageLayer, databaseLayer(options)))), 20_000)
  }

  it.live(
    "a lock_timeout fails those who have waited for a tag, with an error that is worth a retry",
    () =>
      Effect.gen(function*() {
        const [tag, other] = [unique(), unique()]
        const release = yield* holdTags([tag, other])
        const results = yield* Effect.forEach(
          Arr.range(1, 40),
          (i) => Effect.result(append(itemOf(unique(), [i % 2 === 0 ? tag : other]))),
          { concurrency: "unbounded" }
        ).pipe(Effect.timeout("5 seconds"))
        for (const result of results) {
          assert(Result.isFailure(result))
          assert.strictEqual(result.failure.reason._tag, "LockTimeoutError")
          assert.isTrue(result.failure.isRetryable)
        }
        yield* release
        assert.strictEqual((yield* append(itemOf(unique(), [tag])))._tag, "Written")
      }).pipe(
        Effect.provide(
          Layer.provideMerge(storageLayer, databaseLayer({ startupParameters: { lock_timeout: "500ms" } }))
        )
      ),
    20_000
  )

  it.live("end with the layer: who waits for a tag is interrupted", () =>
    Effect.gen(function*() {
      yield* Migrations.run(name)
      const [scope, others] = [yield* Scope.make(), yield* Layer.build(PostgresStorage.layer(name))]
      const closing = yield* Layer.buildWithScope(Layer.fresh(PostgresStorage.layer(name)), scope)
      const tag = unique()
      const release = yield* Effect.provide(holdTags([tag]), others)
      const waiting = yield* Effect.forEach(Arr.range(1, 10), () =>
        Effect.forkChild(Effect.provide(append(itemOf(unique(), [tag])), closing), { startImmediately: true }))
      yield* standsInLine
      yield* Scope.close(scope, Exit.void)
      for (const fiber of waiting) {
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }
      yield* waitUntil(Effect.map(inLine, (count) =>
        count === 0))
      yield* release
      assert.deepStrictEqual(
        (yield* Effect.provide(Effect.flatMap(Storage, ({ ends }) => ends([], [tag])), others)).tags,
        [0]
      )
    }).pipe(Effect.scoped, Effect.provide(databaseLayer())), 20_000)
})
