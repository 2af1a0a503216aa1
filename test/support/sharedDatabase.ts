/** One database that several clients use: in other schemas, with other roles, in other time zones. */
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { inject } from "vitest"
import { databaseLayer } from "./database.ts"

/** What a client of the database asks for when it connects. */
export interface As {
  /** A role that the test made by `createRole`. */
  readonly role?: string
  readonly schema?: string
  readonly timeZone?: string
  readonly maxConnections?: number
}

export const passwordOfRoles = "a-password-of-tests"

export const createRole = Effect.fnUntraced(function*(role: string) {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.acquireRelease(
    sql.unsafe(`create role "${role}" login password '${passwordOfRoles}'`).unprepared,
    () =>
      Effect.ignore(Effect.andThen(
        sql.unsafe(`drop owned by "${role}" cascade`).unprepared,
        sql.unsafe(`drop role "${role}"`).unprepared
      ))
  )
})

export class Clients extends Context.Service<Clients, {
  readonly layer: (as: As) => Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, unknown>
}>()("test/Clients") {}

/** A new database, its owner's client, and those of others. */
export const sharedDatabaseLayer = Layer.effect(
  Clients,
  Effect.map(SqlClient.SqlClient, (sql) => {
    const { config } = sql as PgClient.PgClient
    return Clients.of({
      layer: ({ maxConnections = 4, role, schema, timeZone }) =>
        Layer.fresh(PgClient.layer({
          url: Redacted.make(inject("postgresUrl")),
          ...config.database === undefined ? {} : { database: config.database },
          ...role === undefined ? {} : { username: role, password: Redacted.make(passwordOfRoles) },
          startupParameters: {
            ...schema === undefined ? {} : { search_path: schema },
            ...timeZone === undefined ? {} : { TimeZone: timeZone }
          },
          maxConnections
        }))
    })
  })
).pipe(Layer.provideMerge(databaseLayer()))
