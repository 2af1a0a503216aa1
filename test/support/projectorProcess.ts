/** Projects until it gets a message, then once more, and tells what it did. `projectorProcess.ts URL DATABASE` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Deferred, Effect, Layer, Redacted, Stream } from "effect"
import process from "node:process"
import { shared, type Tally, Transfers } from "./transfers.ts"

const [url = "", database = ""] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const told = yield* Deferred.make<void>()
  process.once("message", () => Deferred.doneUnsafe(told, Effect.void))
  const transfers = yield* Transfers
  const { projector } = yield* transfers.aggregatedStream(shared)
  const tally = { pages: 0, linked: 0 }
  const project = Effect.suspend(() => {
    let before = 0
    return Stream.runForEach(projector.pages, ({ linked }) =>
      Effect.sync(() => {
        if (linked > before) tally.pages++
        tally.linked += linked - before
        before = linked
      }))
  })
  process.send?.("ready")
  yield* Effect.repeat(Effect.andThen(project, Deferred.isDone(told)), { until: (isTold) => isTold })
  yield* project
  process.send?.(tally satisfies Tally)
  process.disconnect()
})

const storeLayer = Layer.provide(Transfers.layer, PgClient.layer({ url: Redacted.make(url), database }))

NodeRuntime.runMain(Effect.provide(program, storeLayer))
