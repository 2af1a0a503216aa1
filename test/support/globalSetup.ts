/** Starts the run's one PostgreSQL server before the first test and stops it after the last. */
import { Effect, Exit, Scope } from "effect"
import type { TestProject } from "vitest/node"
import { startServer } from "./server.ts"

declare module "vitest" {
  export interface ProvidedContext {
    readonly postgresUrl: string
  }
}

const scope = Scope.makeUnsafe()

export const setup = async (project: TestProject): Promise<void> => {
  const server = await Effect.runPromise(Scope.provide(startServer(), scope))
  console.log(`postgres: ${server.name}`)
  project.provide("postgresUrl", server.url)
}

export const teardown = (): Promise<void> => Effect.runPromise(Scope.close(scope, Exit.void))
