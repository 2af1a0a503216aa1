/** A scheduler in a process of its own, until it is killed. `schedulerProcess.ts CONFIG` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, References } from "effect"
import process from "node:process"
import { Work } from "./work.ts"

const { database, name, url } = JSON.parse(process.argv[2] ?? "") as {
  readonly database: string
  readonly name: string
  readonly url: string
}

process.on("disconnect", () => process.exit(1)) // whoever started it is gone

NodeRuntime.runMain(
  Effect.flatMap(Work, (work) => work.scheduler.run()).pipe(
    Effect.provide(Layer.provide(
      Work.layer,
      PgClient.layer({ url: Redacted.make(url), database, applicationName: name, maxConnections: 4 })
    )),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
)
