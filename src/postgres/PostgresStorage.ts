/**
 * The port on PostgreSQL, through `SqlClient` alone.
 */
import { Effect, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import type { InvalidNameError } from "../errors.ts"
import { Storage } from "../Storage.ts"
import { append } from "./append.ts"
import * as Objects from "./objects.ts"
import * as Queries from "./queries.ts"
import { snapshot } from "./snapshot.ts"

/** Serves a store whose database objects exist. */
export const layer = (name: string): Layer.Layer<Storage, InvalidNameError, SqlClient.SqlClient> =>
  Layer.effect(
    Storage,
    Effect.gen(function*() {
      const objects = yield* Effect.fromResult(Objects.forStore(name))
      const sql = (yield* SqlClient.SqlClient).withoutTransforms()
      return Storage.of({
        ...Queries.make(sql, objects),
        append: append(sql, objects),
        withTransaction: sql.withTransaction,
        inTransaction: Effect.map(Effect.serviceOption(sql.transactionService), Option.isSome),
        snapshot: snapshot(sql)
      })
    })
  )
