/** Fibers that make random calls, in a process of their own. `contenderProcess.ts CONFIG` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import process from "node:process"
import { anyCall, Contended, type ContenderConfig } from "./contending.ts"

const config = JSON.parse(process.argv[2] ?? "") as ContenderConfig

const client = PgClient.layer({
  url: Redacted.make(config.url),
  database: config.database,
  maxConnections: config.fibers + 2
})

process.on("disconnect", () => process.exit(1)) // whoever started it is gone

NodeRuntime.runMain(
  Effect.flatMap(Contended, (store) =>
    Effect.forEach(
      Array.from({ length: config.fibers }),
      () => Effect.repeat(anyCall(store, config.kinds), { times: config.calls - 1 }),
      { concurrency: "unbounded", discard: true }
    )).pipe(Effect.provide(Layer.provideMerge(Contended.layerNoMigrations, client))),
  { teardown: (exit) => process.exit(exit._tag === "Success" ? 0 : 1) }
)
