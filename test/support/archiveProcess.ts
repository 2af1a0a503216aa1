/** Imports an archive from a file, until it is killed. `archiveProcess.ts CONFIG` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, Stream } from "effect"
import { Archive } from "effect-message-store"
import process from "node:process"

const { database, file, url } = JSON.parse(process.argv[2] ?? "") as {
  readonly database: string
  readonly file: string
  readonly url: string
}

process.on("disconnect", () => process.exit(1)) // whoever started it is gone

NodeRuntime.runMain(
  Effect.flatMap(Archive.open("work"), (archive) =>
    Stream.runForEach(
      archive.import(Archive.fromFile(file)),
      (progress) => Effect.sync(() => process.send?.(progress))
    )).pipe(
      Effect.scoped,
      Effect.provide(Layer.merge(
        NodeServices.layer,
        PgClient.layer({ url: Redacted.make(url), database, maxConnections: 2 })
      )),
      Effect.andThen(Effect.sync(() => process.exit(0))) // a channel is open to whoever started it
    )
)
