/** Tags what was stored, in a process of its own, and tells each step. `taggingProcess.ts '{ "url", "database" }'` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, Stream } from "effect"
import process from "node:process"
import { Members } from "./members.ts"

const { database, url } = JSON.parse(process.argv[2] ?? "") as { readonly url: string; readonly database: string }

process.on("disconnect", () => process.exit(1)) // whoever started it is gone

NodeRuntime.runMain(
  Members.use((members) =>
    Stream.runForEach(
      members.tagging(),
      (progress) => Effect.callback<void>((resume) => void process.send?.(progress, () => resume(Effect.void)))
    )
  ).pipe(
    Effect.provide(
      Layer.provide(Members.layer, PgClient.layer({ url: Redacted.make(url), database, maxConnections: 3 }))
    )
  ),
  { teardown: (exit) => process.exit(exit._tag === "Success" ? 0 : 1) }
)
