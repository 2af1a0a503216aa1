/**
 * Databases as version 0.1 left them: its migrations, as that version printed them, and a storage that makes the objects
 * of every stream and subscription by them before it opens it.
 */
import { Effect, Layer, Result } from "effect"
import { SqlClient } from "effect/sql"
import { checkEnding, type Named } from "../../src/internal/names.ts"
import type { PayloadType } from "../../src/postgres/migrations/Migration.ts"
import { Storage } from "../../src/Storage.ts"
import release from "../fixtures/release-0.1.json" with { type: "json" }

interface Migration {
  readonly id: number
  readonly name: string
  readonly statements: ReadonlyArray<string>
}

/** The printed text names `v01_store`, `v01_stream` and `v01_subscription`. */
type Names = Partial<Readonly<Record<"store" | "stream" | "subscription", string>>>

/** Runs migrations of 0.1 and records them as it did, unless that was done before: by 0.1, or by what came after it. */
const run = Effect.fnUntraced(function*(table: string, migrations: ReadonlyArray<Migration>, names: Names) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  yield* sql.withTransaction(Effect.gen(function*() {
    yield* sql`select pg_advisory_xact_lock(hashtext(${table}))`
    const [row] = yield* sql<{ readonly done: boolean }>`select to_regclass(${table}) is not null as done`
    if (row?.done === true) return
    yield* sql`create table ${sql(table)} (
      migration_id integer primary key, created_at timestamp with time zone not null default now(), name text not null
    )`
    for (const { id, name, statements } of migrations) {
      for (const statement of statements) {
        const text = statement.replaceAll(
          /v01_(store|stream|subscription)/g,
          (_, kind: keyof Names) => names[kind] ?? `no ${kind}`
        )
        yield* sql.unsafe(text).unprepared
      }
      yield* sql`insert into ${sql(table)} (migration_id, name) values (${id}, ${name})`
    }
  }))
})

export const createStore = (store: string, payload: PayloadType = "json") =>
  run(`effect_message_store_migrations_${store}`, release.store[payload], { store })

export const createStream = (store: string, stream: string) =>
  run(`effect_message_store_streamed_${stream}`, release.stream, { store, stream })

export const createSubscription = (subscription: string) =>
  run(`effect_message_store_subscribed_${subscription}`, release.subscription, { subscription })

/** Names that 0.1 let pass: what it made under them stays. */
const isRefused = (named: Named, name: string) => Result.isFailure(checkEnding(named, name))

/** Of a store whose streams and subscriptions were all made by 0.1. */
export const upgraded = <E, R>(
  storeName: string,
  storage: Layer.Layer<Storage, E, R>
): Layer.Layer<Storage, E, R | SqlClient.SqlClient> =>
  Layer.effect(
    Storage,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const made = Effect.provideService(SqlClient.SqlClient, sql)
      const opened = yield* Storage
      return Storage.of({
        ...opened,
        aggregatedStream: Effect.fnUntraced(function*(definition) {
          if (isRefused("aggregated stream", definition.name)) return yield* opened.aggregatedStream(definition)
          yield* made(createStream(storeName, definition.name))
          const stream = yield* opened.aggregatedStream(definition)
          return {
            ...stream,
            subscription: (name) =>
              isRefused("subscription", name)
                ? stream.subscription(name)
                : Effect.andThen(made(createSubscription(name)), stream.subscription(name))
          }
        })
      })
    })
  ).pipe(Layer.provide(storage))
