/** What may have a connection of the pool for long leaves some to everything else in the process. */
import { Context, Effect, Layer, Semaphore } from "effect"
import { SqlClient } from "effect/sql"
import type { HandlerTransactions } from "../../Storage.ts"
import { perClient } from "./perClient.ts"

/** Connections of the pool that are left free, if it has more than these. */
const spare = 2

/** The driver's default. */
const defaultConnections = 10

export class SpareConnections extends Context.Service<SpareConnections, {
  /**
   * Of handlers' transactions, and of statements that may wait for locks, together. Undefined where the client does not
   * say how many connections it has.
   */
  readonly bound: HandlerTransactions | undefined
}>()("effect-message-store/postgres/SpareConnections") {}

export const layer = perClient(() =>
  Layer.effect(
    SpareConnections,
    Effect.map(SqlClient.SqlClient, (sql) => {
      const { config } = sql as { readonly config?: { readonly maxConnections?: number | undefined } }
      if (config === undefined) return { bound: undefined }
      const limit = Math.max(1, (config.maxConnections ?? defaultConnections) - spare)
      const turns = Semaphore.makeUnsafe(limit)
      return { bound: { limit, inTurn: (transaction) => turns.withPermit(transaction) } }
    })
  )
)
