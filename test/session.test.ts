/** The session outside of the pool: what it tells of a server that takes its connections, and refuses what it is for. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Logger } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import * as Session from "../src/postgres/client/session.ts"
import { databaseLayer } from "./support/database.ts"

describe("PostgreSQL", () => {
  it.live("tells once that it is lost, and not that it is back, while nobody can use it", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => {
        lines.push(String(Array.isArray(message) ? message[0] : message))
      })
      const refusedOften = yield* Deferred.make<void>()
      let count = 0
      const refuse = Effect.suspend(() => {
        count++
        if (count === 4) Deferred.doneUnsafe(refusedOften, Effect.void)
        return Effect.fail(new SqlError({ reason: new UnknownError({ cause: new Error("LISTEN during recovery") }) }))
      })
      yield* Effect.gen(function*() {
        const session = yield* Session.Session
        yield* session.use(() => refuse)
        yield* Deferred.await(refusedOften)
      }).pipe(Effect.scoped, Effect.provide([Session.layer, Logger.layer([logger])]))
      assert.deepStrictEqual(lines, ["The database session of listeners and locks was lost; it is opened again"])
    }).pipe(Effect.provide(databaseLayer())), 30_000)
})
