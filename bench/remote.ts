/** Subjects in processes of their own: none meets the heap, the event loop or the optimised code of another. */
import { Context, Data, Effect, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { type ChildProcess, fork } from "node:child_process"
import * as path from "node:path"
import process from "node:process"
import { layerDatabase } from "../test/support/server.ts"
import type { Measurement } from "./measure.ts"
import type { Reply, Request } from "./protocol.ts"
import type { SubjectName } from "./subjects/index.ts"

export class SubjectError extends Data.TaggedError("SubjectError")<{ readonly message: string }> {}

export interface RemoteSubject {
  /** As in the tables. */
  readonly name: string
  readonly prepare: (caseName: string, quick: boolean) => Effect.Effect<void, SubjectError>
  readonly measure: (milliseconds: number) => Effect.Effect<Measurement, SubjectError>
  readonly analyze: Effect.Effect<void, SubjectError>
  readonly check: Effect.Effect<void, SubjectError>
}

/**
 * Starts a subject on a database of its own, which is dropped with the scope. `checkout` is the folder of another checkout
 * of this library, whose code and bench it then runs.
 */
export const startSubject = Effect.fnUntraced(function*(
  subject: SubjectName,
  serverUrl: string,
  checkout?: string
): Effect.fn.Return<RemoteSubject, SubjectError | SqlError, Scope.Scope> {
  const database = yield* Layer.build(layerDatabase(serverUrl, { maxConnections: 1 }))
  const sql = Context.get(database, SqlClient.SqlClient)
  const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
  const url = new URL(serverUrl)
  url.pathname = `/${row?.name}`
  const name = checkout === undefined ? subject : `${subject}, ${path.basename(checkout)}`
  const program = checkout === undefined
    ? path.join(import.meta.dirname, "child.ts")
    : path.join(checkout, "bench/child.ts")
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      fork(program, [subject, url.href], {
        execArgv: [...process.execArgv, "--expose-gc"]
      })
    ),
    stop
  )
  const ask = (request: Request) => {
    const reply = nextReply(child, name)
    return Effect.suspend(() => {
      child.send(request)
      return reply
    })
  }
  yield* nextReply(child, name)
  return {
    name,
    prepare: (caseName, quick) => Effect.asVoid(ask({ _tag: "Prepare", caseName, quick })),
    analyze: Effect.asVoid(ask({ _tag: "Analyze" })),
    check: Effect.asVoid(ask({ _tag: "Check" })),
    measure: (milliseconds) =>
      Effect.flatMap(ask({ _tag: "Measure", milliseconds }), (reply) =>
        reply._tag === "Measured"
          ? Effect.succeed(reply.measurement)
          : Effect.fail(new SubjectError({ message: `${name}: no measurement` })))
  }
})

const nextReply = (child: ChildProcess, name: string) =>
  Effect.callback<Reply, SubjectError>((resume) => {
    const fail = (reason: string) => resume(Effect.fail(new SubjectError({ message: `${name}: ${reason}` })))
    const onMessage = (reply: Reply) => {
      child.off("exit", onExit)
      if (reply._tag === "Failed") fail(reply.reason)
      else resume(Effect.succeed(reply))
    }
    const onExit = (code: number | null) => {
      child.off("message", onMessage)
      fail(`its process ended (exit code ${code})`)
    }
    child.once("message", onMessage)
    child.once("exit", onExit)
  })

const stop = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    if (child.connected) child.disconnect()
  })
