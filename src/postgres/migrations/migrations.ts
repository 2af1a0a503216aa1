/**
 * The database objects of a store, as numbered migrations.
 *
 * The first makes what depeche_db's contract asks for, where it does not exist; a store that Python made is adopted
 * as it is. The others add what this library needs, and do no harm to Python processes beside it.
 */
import { Effect, Result } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError } from "../../errors.ts"
import { functionSql } from "../append.ts"
import * as Objects from "../objects.ts"
import { statements as projectionStatements } from "../projection.ts"
import { statements as subscriptionStatements } from "../subscriptions.ts"

/**
 * The type of the column that holds messages, in a table that this library creates. `json` keeps the text as it was
 * written and is the faster one to write and to read; `jsonb` has containment operators and GIN indexes.
 */
export type PayloadType = "json" | "jsonb"

export interface Migration {
  readonly id: number
  readonly name: string
  /** In this order, in one transaction. None ends with a semicolon. */
  readonly statements: ReadonlyArray<string>
}

export const forStore = (
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forStore(name), (objects) => [
    { id: 1, name: "messages", statements: messages(objects, options?.payload ?? "json") },
    { id: 2, name: "columns", statements: columns(objects) },
    { id: 3, name: "append", statements: [append(objects), pythonFunction(objects)] }
  ])

/** The database objects of an aggregated stream of a store. */
export const forStream = (
  storeName: string,
  name: string
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.flatMap(Objects.forStore(storeName), (store) =>
    Result.map(Objects.forStream(name), (stream) => [
      { id: 1, name: "aggregated stream", statements: projectionStatements(store, stream) }
    ]))

/**
 * Runs the migrations that have not run yet, in one transaction under a lock: any number of processes may start at
 * once. What has run is recorded in the table `effect_message_store_migrations_{name}`.
 */
export const run = Effect.fnUntraced(function*(
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forStore(name))
  yield* checkUntaken(name, (yield* Effect.fromResult(Objects.forStream(name))).table, "an aggregated stream")
  yield* runAll(migrationsTable, yield* Effect.fromResult(forStore(name, options)))
})

/** The same for an aggregated stream: `effect_message_store_streamed_{name}`. */
export const runStream = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forStream(name))
  yield* checkUntaken(name, (yield* Effect.fromResult(Objects.forStore(name))).table, "a message store")
  yield* runAll(migrationsTable, yield* Effect.fromResult(forStream(storeName, name)))
})

/** The database objects of a subscription. */
export const forSubscription = (name: string): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forSubscription(name), (subscription) => [
    { id: 1, name: "subscription", statements: subscriptionStatements(subscription) }
  ])

/** The same for a subscription: `effect_message_store_subscribed_{name}`. */
export const runSubscription = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forSubscription(name))
  yield* runAll(migrationsTable, yield* Effect.fromResult(forSubscription(name)))
})

/** A store and a stream of one name would share depeche_db's channel. */
const checkUntaken = Effect.fnUntraced(function*(name: string, table: string, owner: string) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const [row] = yield* sql<{ readonly taken: boolean }>`select to_regclass(${table}) is not null as taken`
  if (row?.taken === true) return yield* new InvalidNameError({ name, reason: `is taken by ${owner}` })
})

/** Of two stores that want a stream of one name, the first one has it: its functions link the messages of that one. */
export const checkStore = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, InvalidNameError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const { projectionTable } = yield* Effect.fromResult(Objects.forStream(name))
  const [row] = yield* sql<{ readonly store: string }>`select store from ${sql(projectionTable)}`
  if (row !== undefined && row.store !== storeName) {
    return yield* new InvalidNameError({ name, reason: `is taken by an aggregated stream of the store "${row.store}"` })
  }
})

const runAll = Effect.fnUntraced(function*(table: string, migrations: ReadonlyArray<Migration>) {
  const sql = yield* SqlClient.SqlClient
  yield* Migrator.make({})({
    table,
    loader: Effect.succeed(migrations.map((migration) => [
      migration.id,
      migration.name,
      Effect.succeed(
        Effect.forEach(migration.statements, (statement) => sql.unsafe(statement).unprepared, { discard: true })
      )
    ]))
  })
})

const messages = (objects: Objects.Objects, payload: PayloadType): ReadonlyArray<string> => [
  `create sequence if not exists ${objects.sequence}`,

  `create table if not exists ${objects.table} (
  message_id uuid primary key,
  global_position bigint not null unique,
  added_at timestamptz not null default now(),
  stream varchar(255) not null,
  version int not null,
  message ${payload} not null,
  constraint ${objects.versionConstraint} unique (stream, version)
)`
]

/**
 * depeche_db's own function, which Python calls. It replaces the one that Python made: a transaction has to have its id
 * before it takes positions, which projection.ts relies on, and takes them under the lock of the table. Where Python's
 * trigger tells listeners of every row, this does not.
 */
const pythonFunction = (objects: Objects.Objects): string =>
  `do $migration$ begin
execute replace($text$create or replace function ${objects.writeFunction}(
  message_id uuid, stream varchar, message json, expected_version bigint default null,
  out version bigint, out global_position bigint
) language plpgsql set enable_seqscan to off as $function$
#variable_conflict use_column
declare
  _head bigint;
begin
  perform pg_advisory_xact_lock(${Objects.streamLockKey(`${objects.writeFunction}.stream`)});
  select m.version into _head from ${objects.table} m
  where m.stream = ${objects.writeFunction}.stream order by m.version desc limit 1;
  _head := coalesce(_head, 0);
  if ${objects.writeFunction}.expected_version <> _head then
    raise exception 'Wrong expected version: % (Stream: %, Stream Version: %)',
      ${objects.writeFunction}.expected_version, ${objects.writeFunction}.stream, _head;
  end if;
  version := _head + 1;
  perform pg_current_xact_id();
  insert into ${objects.table} as m (message_id, global_position, stream, version, message)
  values (
    ${objects.writeFunction}.message_id, nextval('${objects.sequence}'),
    ${objects.writeFunction}.stream, ${objects.writeFunction}.version, ${objects.writeFunction}.message
  ) returning m.global_position into global_position;
  <notify>
end
$function$$text$, '<notify>', case
  when exists (select from pg_trigger where tgrelid = '${objects.table}'::regclass and not tgisinternal) then ''
  else $notify$perform pg_notify('${objects.channel}', json_build_object(
    'message_id', ${objects.writeFunction}.message_id, 'stream', ${objects.writeFunction}.stream,
    'version', ${objects.writeFunction}.version, 'global_position', ${objects.writeFunction}.global_position
  )::text);$notify$
end);
end $migration$`

const columns = (objects: Objects.Objects): ReadonlyArray<string> => [
  // depeche_db's timestamp without time zone holds UTC; under this setting no row is rewritten.
  "set local timezone to 'UTC'",
  `alter table ${objects.table} alter column added_at type timestamptz`,
  // Defaults come in a second step, so that the rows of an adopted table are not rewritten: theirs stay null,
  // for "before any transaction that runs now", which the table lock makes true.
  `alter table ${objects.table} add column if not exists tx xid8`,
  `alter table ${objects.table} alter column tx set default pg_current_xact_id()`,
  `alter table ${objects.table} add column if not exists metadata jsonb`,
  `alter table ${objects.table} add column if not exists occurred_at timestamptz`
]

/** Made from a text, since only the table itself tells whether its messages are json or jsonb. */
const append = (objects: Objects.Objects): string =>
  `do $migration$ begin
execute replace($text$${functionSql(objects, "<payload>")}$text$, '<payload>', (
  select format_type(a.atttypid, null) from pg_attribute a
  where a.attrelid = '${objects.table}'::regclass and a.attname = 'message'
));
end $migration$`
