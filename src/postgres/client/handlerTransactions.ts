/** The transactions of handlers leave connections of the pool to everything else in the process. */
import { Context, Effect, Layer, Semaphore } from "effect"
import { SqlClient } from "effect/sql"
import type { HandlerTransactions as Bound } from "../../Storage.ts"
import { perClient } from "./perClient.ts"

/** Connections of the pool that are left free, if it has more than these. */
const spare = 2

/** The driver's default. */
const defaultConnections = 10

/** Undefined where the client does not say how many connections it has. */
export class HandlerTransactions extends Context.Service<HandlerTransactions, {
  readonly bound: Bound | undefined
}>()("effect-message-store/postgres/HandlerTransactions") {}

export const layer = perClient(() =>
  Layer.effect(
    HandlerTransactions,
    Effect.map(SqlClient.SqlClient, (sql) => {
      const { config } = sql as { readonly config?: { readonly maxConnections?: number | undefined } }
      if (config === undefined) return { bound: undefined }
      const limit = Math.max(1, (config.maxConnections ?? defaultConnections) - spare)
      const turns = Semaphore.makeUnsafe(limit)
      return { bound: { limit, inTurn: (transaction) => turns.withPermit(transaction) } }
    })
  )
)
