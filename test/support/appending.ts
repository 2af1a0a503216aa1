/** Appends with tags and conditions by the port, and transactions that have what they need. Free of vitest. */
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../../src/postgres/storage.ts"
import {
  type AppendItem,
  type AppendOutcome,
  type EncodedMessage,
  Storage,
  type TagCondition
} from "../../src/Storage.ts"

export const name = "together"
export const storageLayer = Layer.provideMerge(PostgresStorage.layer(name), Layer.effectDiscard(Migrations.run(name)))

export const message = (tags: ReadonlyArray<string> = [], type = "A", data = "{}"): EncodedMessage => ({
  messageId: globalThis.crypto.randomUUID(),
  occurredAt: DateTime.makeUnsafe(0),
  data,
  tagged: Arr.isReadonlyArrayNonEmpty(tags) ? { type, tags } : undefined
})

export const itemOf = (stream: string, tags: ReadonlyArray<string>, options?: Partial<AppendItem>): AppendItem => ({
  stream,
  expectedVersion: undefined,
  metadata: "{}",
  messages: [message(tags)],
  ...options
})

/** That nobody has written a tag. */
export const nobodyWrote = (tag: string): TagCondition => ({ tags: [tag], types: undefined, after: 0 })

export const unique = (): string => globalThis.crypto.randomUUID()

export const append = (item: AppendItem) =>
  Effect.flatMap(
    Storage,
    (storage) => Effect.map(storage.append([item], { atomic: true }), ([outcome]) => outcome as AppendOutcome)
  )

export const waitUntil = (condition: Effect.Effect<boolean, unknown, SqlClient.SqlClient>) =>
  Effect.gen(function*() {
    while (!(yield* condition)) yield* Effect.yieldNow
  })

/** How many sessions wait for a lock of the database. */
export const inLine = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  return (yield* sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
    .length
})
export const standsInLine = waitUntil(Effect.map(inLine, (count) => count > 0))

/** Has the locks of items in an open transaction, which is rolled back by what is returned. */
export const hold = Effect.fnUntraced(function*(items: ReadonlyArray<AppendItem>) {
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
export const holdTags = (tags: ReadonlyArray<string>) => hold(tags.map((tag) => itemOf(unique(), [tag])))
