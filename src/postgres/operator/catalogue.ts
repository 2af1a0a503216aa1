/**
 * What belongs to a store, read off the database: aggregated streams and subscriptions by the names of their tables, and
 * what their own rows say of where they belong.
 */
import { Effect, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { BuiltIn } from "../../Partitioner.ts"
import type {
  Catalogue,
  CataloguedConsumer,
  CataloguedStream,
  ObjectsVersion,
  OpenedDefinition
} from "../../Storage.ts"
import * as Migrations from "../migrations/migrations.ts"
import * as Objects from "../objects.ts"

/** What a table of each kind has in its name, and a column that only these have. */
const kinds = {
  stream: ["depeche_stream_", "origin_stream"],
  subscription: ["depeche_subscriptions_", "subscription_name"],
  projection: ["effect_message_store_versions_", "is_promoted"]
} as const

type Kind = keyof typeof kinds

interface Candidate {
  readonly kind: Kind
  readonly name: string
  /** The table of ours that tells where it belongs, and the one of version 0.1 that does. */
  readonly tells: string
  readonly told: string
  readonly migrations: string
  readonly known: number
}

interface Told {
  readonly kind: Kind
  readonly name: string
  /** The store of a stream, the aggregated stream of the others. */
  readonly belongs: string | null
  readonly definition: string | null
}

const lastOf = (migrations: Result.Result<ReadonlyArray<{ readonly id: number }>, unknown>): number =>
  Result.isSuccess(migrations) ? migrations.success.at(-1)?.id ?? 0 : 0

/** Names that cannot be those of objects of this library are somebody else's. */
const candidateOf = (kind: Kind, name: string): ReadonlyArray<Candidate> => {
  const found = {
    stream: () => Result.map(Objects.forStream(name), (of) => [of.projectionTable, of.migrationsTable]),
    subscription: () =>
      Result.map(Objects.forSubscription(name), (of) => [of.originTable, of.migrationsTable, of.claimsTable]),
    projection: () => Result.map(Objects.forProjection(name), (of) => [of.versionsTable, of.migrationsTable])
  }[kind]()
  const known = {
    stream: () => lastOf(Migrations.forStream("any", name)),
    subscription: () => lastOf(Migrations.forSubscription(name)),
    projection: () => lastOf(Migrations.forProjection(name))
  }[kind]()
  return Result.match(found, {
    onFailure: () => [],
    onSuccess: ([tells = "", migrations = "", told = tells]) => [{ kind, name, tells, told, migrations, known }]
  })
}

export const make = (sql: SqlClient, store: Objects.Objects): Effect.Effect<Catalogue, SqlError> => {
  const names = Effect.map(
    sql<{ readonly kind: Kind; readonly name: string }>`
      select k.kind, pg_catalog.substr(c.relname::text, pg_catalog.length(k.prefix) + 1) as name
      from (values ${
      sql.literal(
        Object.entries(kinds).map(([kind, [prefix, column]]) =>
          `('${kind}'::text, '${prefix}'::text, '${column}'::text)`
        )
          .join(", ")
      )
    }) k(kind, prefix, "column")
      join pg_catalog.pg_class c on pg_catalog.starts_with(c.relname::text, k.prefix) and c.relkind::text in ('r', 'p')
        and pg_catalog.pg_table_is_visible(c.oid)
      where exists (
        select from pg_catalog.pg_attribute a
        where a.attrelid operator(pg_catalog.=) c.oid and a.attname::text operator(pg_catalog.=) k."column"
          and not a.attisdropped
      )
      order by c.relname`,
    (rows) => rows.flatMap(({ kind, name }) => candidateOf(kind, name))
  )

  /** Of these tables, those that are there, and whether this role may read them. */
  const readable = (tables: ReadonlyArray<string>) =>
    Effect.map(
      sql<{ readonly name: string; readonly may: boolean }>`
        select g.name, pg_catalog.has_table_privilege(to_regclass(g.name)::oid, 'select'::text) as may
        from pg_catalog.unnest(${tables}::text[]) g(name) where to_regclass(g.name) is not null`,
      (rows) => new Map(rows.map(({ may, name }) => [name, may]))
    )

  const union = (parts: ReadonlyArray<Statement.Fragment>) => parts.reduce((all, part) => sql`${all} union all ${part}`)

  const belonging = (
    found: ReadonlyArray<Candidate>,
    may: ReadonlyMap<string, boolean>
  ): Effect.Effect<ReadonlyArray<Told>, SqlError> =>
    found.length === 0 ? Effect.succeed([]) : sql<Told>`${
      union(found.map(({ kind, name, tells, told }) => {
        const [belongs, definition, from] = kind === "stream"
          ? ["store", "definition", sql`${sql(tells)}`]
          : may.get(tells) === true
          ? ["stream", "null::text", sql`${sql(tells)}`]
          : ["owner", "null::text", sql`${sql(told)} where partition = -1`]
        return sql`(select ${kind}::text as kind, ${name}::text as name, ${sql.literal(belongs)} as belongs,
          ${sql.literal(definition)} as definition from ${from} limit 1)`
      }))
    }`

  const versions = (tables: ReadonlyArray<string>) =>
    tables.length === 0 ? Effect.succeed(new Map<string, number>()) : Effect.map(
      sql<{ readonly name: string; readonly made: number | null }>`${
        union(tables.map((table) =>
          sql`select ${table}::text as name, max(migration_id)::int as made from ${sql(table)}`
        ))
      }`,
      (rows) => new Map(rows.flatMap(({ made, name }) => made === null ? [] : [[name, made] as const]))
    )

  return Effect.gen(function*() {
    const candidates = yield* names
    const may = yield* readable([
      store.migrationsTable,
      ...candidates.flatMap(({ migrations, tells, told: earlier }) => [tells, earlier, migrations])
    ])
    const told = yield* belonging(
      candidates.filter(({ tells, told: earlier }) => may.get(may.has(tells) ? tells : earlier) === true),
      may
    )
    const streams = new Map(
      told.flatMap(({ belongs, definition, kind, name }) =>
        kind === "stream" && belongs === store.name ? [[name, definition] as const] : []
      )
    )
    const homes = new Map<string, string>(
      told.flatMap(({ belongs, kind, name }) =>
        kind !== "stream" && belongs !== null && streams.has(belongs) ? [[`${kind} ${name}`, belongs] as const] : []
      )
    )
    const own = candidates.filter(({ kind, name }) =>
      kind === "stream" ? streams.has(name) : homes.has(`${kind} ${name}`)
    )
    const made = yield* versions(
      [store.migrationsTable, ...own.map(({ migrations }) => migrations)].filter((table) => may.get(table) === true)
    )
    const objectsOf = ({ known, migrations }: Candidate): ObjectsVersion => ({ made: made.get(migrations), known })
    const consumers = (wanted: Kind) =>
      own.filter(({ kind }) => kind === wanted).map((candidate): CataloguedConsumer => ({
        name: candidate.name,
        aggregatedStream: homes.get(`${wanted} ${candidate.name}`) ?? "",
        objects: objectsOf(candidate)
      }))
    return {
      store: { made: made.get(store.migrationsTable), known: lastOf(Migrations.forStore(store.name)) },
      aggregatedStreams: own.filter(({ kind }) => kind === "stream").map((candidate): CataloguedStream => ({
        definition: definitionOf(candidate.name, streams.get(candidate.name) ?? null),
        objects: objectsOf(candidate)
      })),
      subscriptions: consumers("subscription"),
      projections: consumers("projection"),
      unreadable: candidates.map(({ tells }) => tells).filter((table) => may.get(table) === false)
    }
  })
}

/** As `streams.ts` has described it. */
const definitionOf = (name: string, text: string | null): OpenedDefinition => {
  if (text === null) return { name, patterns: [], partitioner: undefined }
  const described: { readonly patterns: ReadonlyArray<string>; readonly partitioner: BuiltIn | "function" } = JSON
    .parse(
      text
    )
  const { partitioner, patterns } = described
  return { name, patterns, partitioner: partitioner === "function" ? undefined : partitioner }
}
