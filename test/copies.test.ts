/** A store that is copied into another cluster by pg_dump, and back, while both sides are written to. Where Debian's packages are. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as Ledger from "./support/ledger.ts"
import * as Replicas from "./support/replicas.ts"
import { createEffects, record } from "./support/work.ts"

const packages = "/usr/lib/postgresql"
/** Of the newest version that is installed as a whole. */
const installed = (fs.existsSync(packages) ? fs.readdirSync(packages) : [])
  .toSorted((a, b) => Number(b) - Number(a))
  .map((version) => path.join(packages, version, "bin"))
  .find((bin) => ["initdb", "postgres", "pg_dump", "psql"].every((program) => fs.existsSync(path.join(bin, program))))

const run = (program: string, args: ReadonlyArray<string>, input?: string): string => {
  const done = spawnSync(path.join(installed ?? "", program), args, { encoding: "utf8", input, maxBuffer: 2 ** 28 })
  assert.strictEqual(done.status, 0, `${program}: ${done.stderr}`)
  return done.stdout
}

const copy = (from: Replicas.Node, to: Replicas.Node) =>
  Effect.sync(() =>
    void run(
      "psql",
      ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", to.url],
      run("pg_dump", ["--no-owner", "--dbname", from.url])
    )
  )

/** Decides, writes, links and handles; answers the last message of the chain. */
const work = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const stream = yield* Ledger.ledgered
  const subscription = yield* stream.subscription({ name: "copied", delivery: "transactional" })
  let last = { messageId: "", previous: "" }
  for (let i = 0; i < 3; i++) {
    last = yield* Ledger.addToChain("chain")
    yield* Ledger.addToClub("club", `seat-${i}`)
    yield* Ledger.note(`note-${i}`, i)
  }
  yield* stream.projector.runOnce
  yield* subscription.drain(record(sql, "copied", "copied"))
  return last
})

const workOn = (node: Replicas.Node) => Effect.provide(work, Ledger.application(node.url))

describe.skipIf(installed === undefined)("PostgreSQL", () => {
  it.live("goes on in both clusters, and in the first one again", () =>
    Effect.gen(function*() {
      const binaries = {
        initdb: path.join(installed ?? "", "initdb"),
        postgres: path.join(installed ?? "", "postgres")
      }
      const [here, there] = yield* Effect.all([Replicas.start({ binaries }), Replicas.start({ binaries })], {
        concurrency: 2
      })
      const back = Replicas.databaseOf(here, "back")
      yield* here.ask(createEffects)
      const proxy = yield* Replicas.startProxy
      yield* proxy.pointTo(here)
      const remembering = yield* Layer.build(Ledger.application(proxy.url))
      yield* workOn(here)
      yield* copy(here, there)

      // Both are written to: transaction ids of the one say nothing in the other, and positions are given in both.
      yield* workOn(here)
      yield* Effect.provide(Ledger.addToChain("chain"), remembering)
      const lastThere = yield* workOn(there)
      // Whoever remembers the first cluster decides in the other on what is there.
      yield* proxy.pointTo(there)
      const decided = Effect.retry(Ledger.addToChain("chain"), {
        times: 5,
        while: (error: { readonly _tag: string }) => error._tag === "SqlError"
      })
      const next = yield* Effect.provide(decided, remembering)
      assert.strictEqual(next.previous, lastThere.messageId)
      yield* workOn(there)

      yield* Replicas.run(here, "create database back")
      yield* copy(there, back)
      yield* workOn(there)
      for (const node of [back, here, there, back]) {
        yield* workOn(node)
        assert.strictEqual(yield* Ledger.left(node, ["copied"]), 0)
        assert.deepStrictEqual(yield* Ledger.wrong(node, ["copied"]), {})
      }
    }).pipe(Effect.scoped), 120_000)
})
