/** Pauses and requeues by the command line, in a process of its own, while workers and a writer run in others. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { place, start, terminate, until, untilTold } from "./support/processes.ts"
import { stream } from "./support/work.ts"
import { test } from "./support/working.ts"

const program = path.resolve(import.meta.dirname, "../src/cli/main.ts")

/** Runs a command to its end: its exit code, and what it said. */
const command = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
  const { database, url } = yield* place
  const location = new URL(url)
  location.pathname = `/${database}`
  return yield* Effect.callback<readonly [code: number | null, said: string]>((resume) => {
    const child = spawn(process.execPath, ["--conditions=@effect-message-store/source", program, ...args], {
      env: { ...process.env, DATABASE_URL: location.href },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    for (const pipe of [child.stdout, child.stderr]) {
      pipe.setEncoding("utf8").on("data", (text: string) => {
        said += text
      })
    }
    child.once("close", (code) => resume(Effect.succeed([code, said])))
  })
})

const commanded = (...args: ReadonlyArray<string>) =>
  Effect.map(command(...args), ([code, said]) => assert.strictEqual(code, 0, `${args.join(" ")}: ${said}`))

const names = ["exactly", "at_least"] as const

describe("PostgreSQL: the command line, while workers run under load", () => {
  test(
    "pauses all processes, and has what was parked handled again: nothing is lost, or done twice",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const directory = yield* Effect.acquireRelease(
          Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "operating-"))),
          (made) => Effect.promise(() => fs.rm(made, { recursive: true, force: true }))
        )
        const mended = path.join(directory, "mended")
        const refuses = { every: 10, until: mended }
        const at = yield* place
        const workers = yield* Effect.forEach([1, 2], (i) =>
          start({
            _tag: "Worker",
            ...at,
            name: `worker-${i}`,
            partitions: 4,
            projects: true,
            subscriptions: [
              { name: "exactly", delivery: "transactional", batchSize: 20, refuses },
              { name: "at_least", delivery: "atLeastOnce", acknowledge: "message", batchSize: 20, refuses }
            ]
          }))
        for (const worker of workers) yield* untilTold(worker, "Ready")
        const pace = { batches: 1_000_000, batchSize: 5, streams: 8, pauseMilliseconds: 20 }
        const writer = yield* start({ _tag: "Writer", ...at, name: "writer", ...pace })
        yield* untilTold(writer, "Ready")

        const merged = yield* stream(4)
        const subscriptions = yield* Effect.forEach(names, (name) => merged.subscription({ name }))
        const all = <A>(
          ask: (of: typeof subscriptions[number]) => Effect.Effect<A, unknown>
        ): Effect.Effect<Array<A>> => Effect.orDie(Effect.forEach(subscriptions, ask))
        const parked = all(({ parked: entries }) => Effect.map(entries, ({ length }) => length))
        const done = Effect.map(
          sql<{ readonly subscription: string; readonly count: number; readonly messages: number }>`
          select subscription, count(*)::int as count, count(distinct message_id)::int as messages from effects
          group by subscription order by subscription desc`,
          (rows) => rows.map(({ count, messages, subscription }) => ({ subscription, count, messages }))
        )
        yield* until("messages are parked", Effect.map(parked, (counts) => counts.every((count) => count >= 10)), 60)

        yield* Effect.forEach(names, (name) => commanded("pause", name, "--reason", "a fault", "--yes"), {
          concurrency: 2
        })
        const isFree = all(({ status }) =>
          Effect.map(status, (partitions) => partitions.every(({ claimedBy }) => claimedBy === undefined))
        )
        yield* until("no process holds a partition", Effect.map(isFree, (free) => free.every((each) => each)), 60)
        const whenPaused = yield* done
        const lags = all(({ lag }) => lag)
        const before = yield* lags
        yield* until(
          "more was written",
          Effect.map(lags, (now) => now.every((lag, i) => lag > (before[i] ?? 0) + 100)),
          60
        )
        assert.deepStrictEqual(yield* done, whenPaused)

        yield* Effect.promise(() => fs.writeFile(mended, ""))
        const waiting = yield* parked
        yield* Effect.forEach(
          names,
          (name) => Effect.andThen(commanded("requeue", name, "--all", "--yes"), commanded("resume", name, "--yes")),
          {
            concurrency: 2
          }
        )
        assert.isTrue(waiting.every((count) => count >= 10))
        yield* until("nothing is parked", Effect.map(parked, (counts) => counts.every((count) => count === 0)), 60)
        yield* terminate(writer)
        yield* until("all is handled", Effect.map(lags, (now) => now.every((lag) => lag === 0)), 60)

        const [stored] = yield* sql<{ readonly count: number }>`select count(*)::int as count from depeche_msgs_work`
        const messages = stored?.count ?? 0
        assert.isAbove(messages, 200)
        const [exactly, atLeast] = yield* done
        assert.deepStrictEqual(exactly, { subscription: "exactly", count: messages, messages })
        assert.include(atLeast, { subscription: "at_least", messages })
        for (const worker of workers) assert.strictEqual(yield* terminate(worker), 0)
      }),
    240_000
  )
})
