/** What there is one of for each client, however many stores use it. */
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"

/**
 * Effect builds a layer that is one value once, with the client it meets first. An application with two databases has two
 * clients: each gets a layer of its own. The one that finds them is built anew by whoever needs it.
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
