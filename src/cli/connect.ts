/** Which database, and which store in it. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { Config, Effect, Layer, Option, Redacted } from "effect"
import { Flag, GlobalFlag } from "effect/cli"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { existsSync } from "node:fs"
import { printable } from "../internal/printable.ts"
import * as Operator from "../Operator.ts"
import { PgliteClient } from "../pglite/index.ts"
import { CommandError } from "./failure.ts"

export const Url = GlobalFlag.Setting("url")({
  flag: Flag.Redacted("url").pipe(
    Flag.optional,
    Flag.withMetavar("<url or directory>"),
    Flag.withDescription("The database: postgres://…, or the directory of a PGlite database. Default: DATABASE_URL")
  )
})

export const Store = GlobalFlag.Setting("store")({
  flag: Flag.String("store").pipe(
    Flag.optional,
    Flag.withMetavar("<name>"),
    Flag.withDescription("The name of the store. Default: the only one that the database has")
  )
})

export const Json = GlobalFlag.Setting("json")({
  flag: Flag.Boolean("json").pipe(Flag.withDefault(false), Flag.withDescription("Print JSON"))
})

const isServer = (url: string): boolean => /^postgres(ql)?:\/\//.test(url)

const directoryOf = (url: string): string => url.replace(/^(file|pglite):(\/\/)?/, "")

/** A client of the database, few connections wide. */
const client = (
  url: Redacted.Redacted,
  maxConnections: number
): Layer.Layer<SqlClient.SqlClient, SqlError | CommandError> =>
  isServer(Redacted.value(url))
    ? PgClient.layer({ url, maxConnections, applicationName: "effect-message-store" })
    : PgliteClient.layer({ dataDir: directoryOf(Redacted.value(url)) }).pipe(
      Layer.catch(({ reason: { cause } }) => {
        const why = cause instanceof Error ? cause.message : String(cause)
        return Layer.effectContext(
          Effect.fail(new CommandError({ reason: `the PGlite database cannot be opened: ${why}` }))
        )
      })
    )

const given = Effect.gen(function*() {
  const url = Option.orElse(yield* Url, () => Option.none<Redacted.Redacted>())
  if (Option.isSome(url)) return url.value
  const fromEnvironment = yield* Effect.orDie(Config.option(Config.Redacted("DATABASE_URL")))
  return yield* Option.match(fromEnvironment, {
    onNone: () =>
      Effect.fail(
        new CommandError({ reason: "which database? Set DATABASE_URL, or give --url postgres://…, or a directory" })
      ),
    onSome: Effect.succeed
  })
})

/** PGlite would make one, of a name that was mistyped too. It is not named: it may be a URL that has a password. */
const checkDirectory = (url: string) =>
  isServer(url) || existsSync(directoryOf(url))
    ? Effect.void
    : Effect.fail(
      new CommandError({
        reason: "DATABASE_URL or --url is neither a server (postgres://…) nor a directory that is there; " +
          "`effect-message-store migrate --store <name>` makes a database in a new one"
      })
    )

/** Runs an effect with the database. */
export const withDatabase = <A, E, R>(
  effect: Effect.Effect<A, E, R | SqlClient.SqlClient>,
  { connections = 3, creates = false }: { readonly connections?: number; readonly creates?: boolean } = {}
) =>
  Effect.flatMap(given, (url) =>
    Effect.andThen(
      creates ? Effect.void : checkDirectory(Redacted.value(url)),
      Effect.provide(effect, client(url, connections))
    ))

/** The store that is meant. */
export const storeName = Effect.gen(function*() {
  const named = yield* Store
  if (Option.isSome(named)) return named.value
  const [first, ...others] = yield* Operator.stores
  if (first === undefined) {
    return yield* new CommandError({
      reason: "this database has no store that this role sees: `effect-message-store migrate --store <name>` makes one"
    })
  }
  if (others.length > 0) {
    const names = [first, ...others].slice(0, 20).map(printable).join(", ")
    return yield* new CommandError({ reason: `which store? Give --store, one of: ${names}` })
  }
  return first
})

/** Runs an effect with the operator of the store. */
export const withOperator = <A, E, R>(
  use: (operator: Operator.OperatorService) => Effect.Effect<A, E, R>,
  options: { readonly connections?: number } = {}
) =>
  withDatabase(
    Effect.flatMap(
      storeName,
      (name) => Effect.provide(Effect.flatMap(Operator.Operator, use), Layer.fresh(Operator.layer(name)))
    ),
    options
  )
