/**
 * The shop: a server and a worker, on a PostgreSQL that ends with them, or on the one that DATABASE_URL names.
 *
 *   npm run shop            then look at http://127.0.0.1:3000
 *
 * Ctrl-C ends both, and waits for them.
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer, Schema } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import { startServer } from "../../test/support/server.ts"
import { run } from "./process.ts"

class ProgramEnded extends Schema.TaggedError<ProgramEnded>()("ProgramEnded", {
  program: Schema.String,
  code: Schema.Int
}) {}

/** Runs a program of this folder. It is told to stop when this process is, and waited for. */
const runProgram = Effect.fn("runProgram")(function*(program: string, url: string) {
  const child = yield* ChildProcess.make(
    process.execPath,
    ["--conditions=@effect-message-store/source", fileURLToPath(new URL(program, import.meta.url))],
    { env: { DATABASE_URL: url }, extendEnv: true, stdin: "ignore", stdout: "inherit", stderr: "inherit" }
  )
  return yield* new ProgramEnded({ program, code: yield* child.exitCode })
}, Effect.scoped)

const shop = Effect.gen(function*() {
  const { url } = yield* startServer({ durable: true })
  return yield* Effect.raceFirst(runProgram("worker.ts", url), runProgram("server.ts", url))
})

run(Layer.provide(Layer.effectDiscard(shop), NodeServices.layer))
