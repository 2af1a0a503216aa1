/** PostgreSQL in a container. */
import { PostgreSqlContainer } from "@testcontainers/postgresql"
import { Effect } from "effect"
import { getContainerRuntimeClient } from "testcontainers"

/** Whether Docker, or something like it, is there. */
export const hasContainers = Effect.promise(() => getContainerRuntimeClient().then(() => true, () => false))

/** Starts a server with these arguments, which ends with the scope; its URL. */
export const container = Effect.fnUntraced(function*(settings: ReadonlyArray<string>) {
  const server = yield* Effect.acquireRelease(
    Effect.promise(() => new PostgreSqlContainer("postgres:18-alpine").withCommand(["postgres", ...settings]).start()),
    (started) => Effect.promise(() => started.stop())
  )
  return server.getConnectionUri()
})
