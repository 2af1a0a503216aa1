/**
 * Declared tags on PostgreSQL: the rows of a table, and a number that rises with each declaration (migrations 5 to 7 tell how
 * writers use it).
 *
 * A declaration is committed first. Then the sequence gets its number, and from that moment on each call that begins finds the tags
 * or is refused, whatever snapshot it has. Calls that began before, and transactions in which the functions of an earlier version
 * may still run, are waited for, as CREATE INDEX CONCURRENTLY waits: all virtual transactions of that moment, and those that are
 * prepared.
 */
import { Effect, Option } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isSame } from "../internal/tagPaths.ts"
import type { Declarations, DeclaredTag, TaggingStorage, TagPath } from "../Storage.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Int8, int8 } from "./client/values.ts"
import { arrayLiteral } from "./decide.ts"
import { serverRun, type Store, taggingLockKey } from "./objects.ts"

interface Row {
  readonly type: string
  readonly tag: string
  /** JSON, as text. */
  readonly path: string
  readonly type_field: string
  readonly is_required: boolean
  readonly is_complete: boolean
  readonly position: Int8
  readonly up_to: Int8 | null
}

/** The transactions that are open in this database, but for the one that asks. */
const openTransactions = `select l.virtualxid as transaction
  from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
  where l.locktype operator(pg_catalog.=) 'virtualxid'::text and l.granted and l.pid <> pg_catalog.pg_backend_pid()
    and a.datname operator(pg_catalog.=) pg_catalog.current_database()
    and a.backend_type is distinct from 'autovacuum worker'::text
  union all
  select 'prepared '::text operator(pg_catalog.||) p.transaction::text from pg_catalog.pg_prepared_xacts p
  where p.database operator(pg_catalog.=) pg_catalog.current_database()`

export const make = (sql: SqlClient, store: Store): TaggingStorage => {
  const { declaredSequence } = store
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const tagged = sql(store.taggedTypesTable)
  const settings = sql(store.settingsTable)
  const open = sql.literal(openTransactions)

  const declaredTags: Effect.Effect<Declarations, SqlError> = Effect.gen(function*() {
    const [row] = yield* sql<{ readonly declared: Int8; readonly run: Int8 }>`
      select declared, ${sql.literal(serverRun)} as run from ${settings}`
    store.answered.run = Number(row?.run ?? store.answered.run)
    const number = Number(row?.declared ?? 1)
    if (number === 1) return { number, tags: [] } // whoever declares nothing needs no rights on tags
    const rows = yield* sql<Row>`
      select type, tag, pg_catalog.array_to_json(path)::text as path, type_field, is_required, is_complete, position, up_to
      from ${tagged}`
    return { number, tags: rows.map(toDeclared) }
  })

  /** Rows of the table of declarations; the statement calls it `t`. */
  const among = (places: ReadonlyArray<TagPath>) =>
    sql`exists (
      select from unnest(${places.map(({ type }) => type)}::text[], ${places.map(({ tag }) => tag)}::text[],
        ${places.map(({ path }) => arrayLiteral(path))}::text[]) p(type, tag, path)
      where p.type operator(pg_catalog.=) t.type and p.tag operator(pg_catalog.=) t.tag
        and p.path::text[] operator(pg_catalog.=) t.path
    )`

  const locked = <A>(effect: Effect.Effect<A, SqlError>) =>
    withTransaction(sql)(Effect.andThen(sql`lock table ${tagged} in share row exclusive mode`, effect))

  const declareTags = Effect.fnUntraced(function*(places: ReadonlyArray<TagPath>) {
    const before = yield* declaredTags
    const lacks = places.filter((place) => !before.tags.some((one) => isSame(one, place)))
    const relaxed = places.filter((place) =>
      !place.isRequired && before.tags.some((one) => isSame(one, place) && one.isRequired)
    )
    if (lacks.length === 0 && relaxed.length === 0) return before
    yield* locked(Effect.gen(function*() {
      if (relaxed.length > 0) yield* sql`update ${tagged} t set is_required = false where ${among(relaxed)}`
      const inserted = yield* sql`
        insert into ${tagged} (type, tag, path, type_field, is_required)
        select p.type, p.tag, p.path::text[], p.type_field, p.is_required
        from unnest(${lacks.map(({ type }) => type)}::text[], ${lacks.map(({ tag }) => tag)}::text[],
          ${lacks.map(({ path }) => arrayLiteral(path))}::text[], ${lacks.map(({ typeField }) => typeField)}::text[],
          ${lacks.map(({ isRequired }) => isRequired)}::boolean[]) p(type, tag, path, type_field, is_required)
        on conflict do nothing returning 1 as one`
      if (inserted.length > 0) {
        // Not one by one: a server that lacks this declaration must not give its number to another.
        yield* sql`update ${settings} set declared = declared + 1 + (pg_catalog.random() operator(pg_catalog.*) 1000000::float8)::int`
      }
    }))
    if (!(yield* inTransaction)) yield* enforce // what a transaction declares is in force some time after its commit
    return yield* declaredTags
  })

  const inTransaction = Effect.map(Effect.serviceOption(sql.transactionService), Option.isSome)

  /** In a transaction that begins when the declarations are committed. */
  const enforce = locked(Effect.gen(function*() {
    yield* sql`select setval(${declaredSequence}::text::regclass, s.declared) as number from ${settings} s`
    yield* sql`update ${tagged} set waits_for = array(select open.transaction from (${open}) open) where waits_for is null`
  }))

  const settleTags = Effect.fnUntraced(function*(places: ReadonlyArray<TagPath>) {
    if (yield* inTransaction) return 1 // itself
    const [unforced] = yield* sql`select from ${tagged} where waits_for is null limit 1`
    if (unforced !== undefined) yield* enforce
    const [waiting] = yield* sql<{ readonly count: number }>`
      select pg_catalog.count(*)::int as count from (${open}) open
      where exists (
        select from ${tagged} t
        where t.up_to is null and not t.is_complete and open.transaction operator(pg_catalog.=) any(t.waits_for) and ${
      among(places)
    }
      )`
    if (waiting === undefined || waiting.count > 0) return waiting?.count ?? 0
    const unsettled = yield* sql<Pick<Row, "type" | "type_field">>`
      select distinct t.type, t.type_field from ${tagged} t where t.up_to is null and not t.is_complete and ${
      among(places)
    }`
    for (const { type, type_field } of unsettled) {
      // The type is looked for in the text first: what holds NUL cannot be read as JSON, and is taken to be of the type.
      const mentions = `"${type_field}"\\s*:\\s*${escaped(JSON.stringify(type))}`
      yield* sql`
        update ${tagged} t set is_complete = not stored.found, position = 0,
          up_to = case when stored.found then (select coalesce(max(m.global_position), 0) from ${table} m) else 0 end
        from (select exists (
          select from ${table} m where m.message::text operator(pg_catalog.~) ${mentions}::text
            and case when m.message::text operator(pg_catalog.~~) ${"%\\\\u0000%"}::text then true
              else (m.message::json operator(pg_catalog.->>) ${type_field}::text) operator(pg_catalog.=) ${type}::text end
            and not exists (select from ${tags} x where x.global_position = m.global_position)
        ) as found) stored
        where t.type operator(pg_catalog.=) ${type}::text and t.up_to is null and not t.is_complete and ${
        among(places)
      }`
    }
    return 0
  })

  // Who deletes is waited for, and waits: or a message that is deleted meanwhile would leave its tags behind.
  const tagStored: TaggingStorage["tagStored"] = ({ from, places, tags: found, to }) =>
    withTransaction(sql)(Effect.map(
      Effect.andThen(
        sql`select pg_catalog.pg_advisory_xact_lock(${sql.literal(taggingLockKey(store))})`,
        sql<{ readonly moved: number }>`
        with mine as materialized (
          select t.type, t.tag, t.path from ${tagged} t
          where t.position = ${int8(from)}::int8 and not t.is_complete and ${among(places)}
          order by t.type, t.tag, t.path for update
        ), moved as (
          update ${tagged} t set position = ${int8(to)}::int8, is_complete = ${int8(to)}::int8 >= t.up_to
          from mine where (select pg_catalog.count(*) from mine) = ${places.length}::int8
            and t.type operator(pg_catalog.=) mine.type and t.tag operator(pg_catalog.=) mine.tag
            and t.path operator(pg_catalog.=) mine.path
          returning 1
        ), added as (
          insert into ${tags} (tag, global_position, type)
          select f.tag, f.position, f.type
          from unnest(${found.map(({ tag }) => tag)}::text[], ${
          found.map(({ globalPosition }) => int8(globalPosition))
        }::int8[],
            ${found.map(({ type }) => type)}::text[]) f(tag, position, type)
          where (select pg_catalog.count(*) from moved) > 0
            and exists (select from ${table} m where m.global_position = f.position)
          order by 1, 2
          on conflict do nothing
        )
        select pg_catalog.count(*)::int as moved from moved`
      ),
      ([row]) => (row?.moved ?? 0) > 0
    ))

  return { declareTags, declaredTags, settleTags, tagStored }
}

const toDeclared = (row: Row): DeclaredTag => ({
  type: row.type,
  typeField: row.type_field,
  tag: row.tag,
  path: JSON.parse(row.path),
  isRequired: row.is_required,
  isComplete: row.is_complete,
  position: Number(row.position),
  upTo: row.up_to === null ? undefined : Number(row.up_to)
})

/** A text in a regular expression. */
const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
