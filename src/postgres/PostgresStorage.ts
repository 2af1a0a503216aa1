/**
 * The port on PostgreSQL, through `SqlClient` alone.
 */
import { Array as Arr, Context, Effect, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError } from "../errors.ts"
import { type AppendOutcome, Storage } from "../Storage.ts"
import { append } from "./append.ts"
import * as Coalesce from "./coalesce.ts"
import * as Objects from "./objects.ts"
import * as Queries from "./queries.ts"
import { snapshot } from "./snapshot.ts"

/** Serves a store whose database objects exist. */
export const layer = (
  name: string,
  options?: { readonly coalesce?: boolean | undefined }
): Layer.Layer<Storage, InvalidNameError, SqlClient.SqlClient> =>
  Layer.effect(
    Storage,
    Effect.gen(function*() {
      const objects = yield* Effect.fromResult(Objects.forStore(name))
      const sql = (yield* SqlClient.SqlClient).withoutTransforms()
      const call = append(sql, objects)
      const coalesced = options?.coalesce === false ? undefined : yield* Coalesce.make(call)
      return Storage.of({
        ...Queries.make(sql, objects),
        append: (items, { atomic }) =>
          Effect.withFiber((fiber) =>
            coalesced !== undefined && items.length === 1 &&
              Context.getOrUndefined(fiber.context, sql.transactionService) === undefined
              ? Effect.map(coalesced(items[0]), Arr.of)
              : call(items, { atomic, wait: true }) as Effect.Effect<ReadonlyArray<AppendOutcome>, SqlError>
          ),
        withTransaction: sql.withTransaction,
        inTransaction: Effect.map(Effect.serviceOption(sql.transactionService), Option.isSome),
        snapshot: snapshot(sql)
      })
    })
  )
