/**
 * Deletes the first messages of a stream, or redacts messages, and deletes what is kept of them: under the locks of the streams, as
 * those who write to them.
 *
 * The rows of tags have no index by position: they are found by the tags that a message has where they are declared. What the
 * database cannot find so (a message without a tag that it should have) is looked for among all.
 */
import { Data, Effect, Predicate } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import { SerializationError, SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { type Deletion, DeletionOutcome, type MessageStorage } from "../Storage.ts"
import { withTransaction } from "./client/transaction.ts"
import type { Int8 } from "./client/values.ts"
import { withLock } from "./locks.ts"
import { type Store, streamLockKey, taggingLockKey, tagLockKey } from "./objects.ts"
import { qualified } from "./views.ts"

/** How many messages a statement deletes. */
const pageSize = 10_000

interface Found {
  /** Of the first message, and of the last; 0: none. */
  readonly first: number
  readonly version: number
  readonly global_position: Int8 | null
  readonly has_tags: boolean
  /** Whether the transaction may not see what was written last. */
  readonly is_stale: boolean
}

/** Takes back what was written to find out whether it can be. */
class Undone extends Data.TaggedError("Undone")<{}> {}

export const make = (sql: SqlClient, store: Store): Pick<MessageStorage, "delete" | "lockStreams" | "redact"> => {
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const transaction = withTransaction(sql)

  /** Fails where somebody has written to the stream behind what this transaction sees, as an append does. */
  const ensureLast = (stream: string, version: number): Effect.Effect<void, SqlError> =>
    transaction(Effect.andThen(
      sql`insert into ${table} (message_id, global_position, stream, version, message, tx)
        values (pg_catalog.gen_random_uuid(), pg_catalog.nextval(${store.sequence}::text::regclass), ${stream}::text,
          ${version + 1}::int, '{}', pg_catalog.pg_current_xact_id())`,
      new Undone()
    )).pipe(
      Effect.catchTag("Undone", () => Effect.void),
      Effect.mapError((error) =>
        error.reason._tag === "UniqueViolation"
          ? new SqlError({
            reason: new SerializationError({
              cause: error,
              message: "could not serialize access: a message was written that this transaction cannot see",
              operation: "delete"
            })
          })
          : error
      )
    )

  /**
   * The aggregated streams whose links may be of the store: of every one that stands where it stands. No projector works on them
   * until the transaction ends, so that none links what is deleted: depeche_db's consumers fail at links that lead nowhere.
   */
  const lockLinks: Effect.Effect<ReadonlyArray<Statement.Fragment>, SqlError> = Effect.gen(function*() {
    const found = yield* sql<{ readonly name: string }>`
      select c.relname::text as name from pg_catalog.pg_class c
      join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
      where n.nspname::text operator(pg_catalog.=) ${store.schema}::text and c.relkind::text operator(pg_catalog.=) 'r'::text
        and c.relname::text operator(pg_catalog.~) '^depeche_stream_[A-Za-z0-9_]+$'::text and exists (
          select from pg_catalog.pg_attribute a where a.attrelid operator(pg_catalog.=) c.oid
            and a.attname::text operator(pg_catalog.=) 'origin_stream_global_position'::text
        )
      order by 1`
    const links = found.map(({ name }) => qualified(sql, store.schema, name))
    for (const each of links) yield* sql`lock table ${each} in row exclusive mode`
    return links
  })

  const deletePage = Effect.fnUntraced(function*(
    stream: string,
    from: number,
    to: number,
    hasTags: boolean,
    links: ReadonlyArray<Statement.Fragment>
  ) {
    const gone = sql`m.stream operator(pg_catalog.=) ${stream}::text and m.version >= ${from}::int
      and m.version <= ${to}::int`
    const removed = (found: Statement.Fragment) =>
      sql<{ readonly key: string }>`with removed as (${found} returning t.tag)
        select distinct (${sql.literal(tagLockKey(store, "r.tag"))})::text as key from removed r`
    const keys = !hasTags ? [] : yield* transaction(removed(
      sql`delete from ${tags} t using (
        select d.tag, m.global_position from ${table} m
        cross join lateral ${sql(store.deriveFunction)}(m.message::text) d where ${gone}
      ) g where t.tag operator(pg_catalog.=) g.tag and t.global_position = g.global_position`
    )).pipe(
      Effect.catchIf(
        isUntaggable,
        () =>
          removed(sql`delete from ${tags} t using ${table} m where ${gone} and t.global_position = m.global_position`)
      )
    )
    for (const each of links) {
      yield* sql`delete from ${each} l using ${table} m where ${gone}
        and l.message_id = m.message_id and l.origin_stream_global_position = m.global_position`
    }
    yield* sql`delete from ${table} m where ${gone}`
    return keys.map(({ key }) => key)
  })

  /** The editions of streams and tags rise, and snapshots that were made of these go: first those who save one are waited for. */
  const forget = Effect.fnUntraced(function*(streams: ReadonlyArray<string>, tagKeys: Iterable<string>) {
    const raised = yield* sql<{ readonly key: string }>`
      insert into ${sql(store.editionsTable)} as e (key, edition)
      select k.key, 1 from (
        select ${sql.literal(streamLockKey(store, "s.name"))} as key from pg_catalog.unnest(${streams}::text[]) s(name)
        union select t.key from pg_catalog.unnest(${Array.from(tagKeys)}::int8[]) t(key)
      ) k order by k.key
      on conflict (key) do update set edition = e.edition + 1 returning e.key::text as key`
    yield* sql`delete from ${sql(store.snapshotsTable)} s
      where s.keys operator(pg_catalog.&&) ${raised.map(({ key }) => key)}::int8[]`
  })

  return {
    delete: ({ expectedVersion, stream, toVersion }: Deletion) =>
      withLock(sql, store)({ of: "stream", name: stream, alone: true })(Effect.gen(function*() {
        const [found] = yield* sql<Found>`
          select coalesce(l.version, 0) as version, l.global_position, coalesce((
              select m.version from ${table} m where m.stream operator(pg_catalog.=) ${stream}::text
              order by m.version limit 1
            ), 0) as first, s.declared > 1 as has_tags,
            pg_catalog.current_setting('transaction_isolation') <> 'read committed' as is_stale
          from ${sql(store.settingsTable)} s left join (
            select m.version, m.global_position from ${table} m where m.stream operator(pg_catalog.=) ${stream}::text
            order by m.version desc limit 1
          ) l on true`
        const { first = 0, global_position = null, has_tags = false, is_stale = false, version = 0 } = found ?? {}
        const isWhole = toVersion >= version
        if (is_stale && (isWhole || expectedVersion !== undefined)) yield* ensureLast(stream, version)
        if (
          expectedVersion !== undefined && (expectedVersion === "exists" ? version === 0 : expectedVersion !== version)
        ) {
          return DeletionOutcome.WrongVersion({ actualVersion: version })
        }
        const last = Math.min(toVersion, version)
        const count = version === 0 ? 0 : Math.max(last - first + 1, 0)
        if (count > 0) {
          if (has_tags) {
            yield* sql`select pg_catalog.pg_advisory_xact_lock_shared(${sql.literal(taggingLockKey(store))})`
          }
          const links = yield* lockLinks
          const tagKeys = new Set<string>()
          for (let from = first; from <= last; from += pageSize) {
            const keys = yield* deletePage(stream, from, Math.min(from + pageSize - 1, last), has_tags, links)
            for (const key of keys) tagKeys.add(key)
          }
          yield* forget([stream], tagKeys)
        }
        return DeletionOutcome.Deleted({
          count,
          head: isWhole
            ? { stream, version: 0, globalPosition: undefined }
            : { stream, version, globalPosition: global_position === null ? undefined : Number(global_position) }
        })
      })),

    lockStreams: (streams) =>
      Effect.asVoid(
        sql`select pg_catalog.pg_advisory_xact_lock(l.key) from (
          select distinct ${
          sql.literal(streamLockKey(store, "s.name"))
        } as key from pg_catalog.unnest(${streams}::text[]) s(name)
          order by 1
        ) l`
      ),

    redact: Effect.fnUntraced(function*(redactions) {
      // Both types of the column take JSON.
      yield* sql`update ${table} m set message = g.data::json, metadata = g.metadata::jsonb
        from unnest(${redactions.map(({ messageId }) => messageId)}::uuid[], ${
        redactions.map(({ data }) => data)
      }::text[],
          ${redactions.map(({ metadata }) => metadata)}::text[]) g(id, data, metadata)
        where m.message_id = g.id`
      const lost = redactions.flatMap(({ lostTags, messageId }) => lostTags.map((tag) => ({ messageId, tag })))
      if (lost.length > 0) {
        yield* sql`delete from ${tags} t using ${table} m, unnest(${lost.map(({ messageId }) => messageId)}::uuid[],
            ${lost.map(({ tag }) => tag)}::text[]) g(id, tag)
          where m.message_id = g.id and t.tag operator(pg_catalog.=) g.tag and t.global_position = m.global_position`
      }
      const names = new Set(redactions.flatMap((one) => one.tags))
      const keys = names.size === 0 ? [] : yield* sql<{ readonly key: string }>`
        select distinct (${sql.literal(tagLockKey(store, "t.name"))})::text as key
        from pg_catalog.unnest(${Array.from(names)}::text[]) t(name)`
      yield* forget(Array.from(new Set(redactions.map(({ stream }) => stream))), keys.map(({ key }) => key))
    })
  }
}

/** Whether the function that finds tags has refused a message (migration 7). */
const isUntaggable = ({ reason: { cause } }: SqlError): boolean =>
  Predicate.hasProperty(cause, "code") && cause.code === "22023"
