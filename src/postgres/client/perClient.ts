/** Layers that are built once for each `SqlClient`, however many stores use it. */
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"

/**
 * Effect memoises a layer by its identity, whatever client it is built with. An application with two databases has two
 * clients, so each client gets a layer of its own, and the memo map shares that one.
 */
export const perClient = <A>(
  make: () => Layer.Layer<A, never, SqlClient.SqlClient>
): Layer.Layer<A, never, SqlClient.SqlClient> => {
  const layers = new WeakMap<SqlClient.SqlClient, Layer.Layer<A, never, SqlClient.SqlClient>>()
  return Layer.fromBuild((memoMap, scope) =>
    Effect.flatMap(SqlClient.SqlClient, (sql) => {
      const layer = layers.get(sql) ?? make()
      layers.set(sql, layer)
      return Layer.buildWithMemoMap(layer, memoMap, scope)
    })
  )
}
