/** The directory that keeps a PGlite database: who may open it, and what is found in it afterwards. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { spawn, spawnSync } from "node:child_process"
import * as NodeFs from "node:fs"
import * as NodeOs from "node:os"
import * as NodePath from "node:path"
import { createInterface } from "node:readline/promises"
import { PgliteClient } from "../src/pglite/index.ts"
import { image } from "./support/pglite.ts"
import { numbers, sqlError } from "./support/pgliteClient.ts"

const { PgClient: Client } = PgClient

describe("a directory", () => {
  let root: string
  let database: string
  beforeAll(async () => {
    root = NodeFs.mkdtempSync(NodePath.join(NodeOs.tmpdir(), "pglite-"))
    database = NodePath.join(root, "parent", "database")
    await Effect.runPromise(Effect.provide(
      Effect.flatMap(Client, (sql) => sql`create table kept as select 7 as i`),
      Layer.unwrap(Effect.map(image, (loadDataDir) => PgliteClient.layer({ dataDir: database, loadDataDir })))
    ))
  })
  afterAll(() => NodeFs.rmSync(root, { recursive: true }))

  const withClient = <A, E>(dataDir: string, f: (sql: PgClient.PgClient) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(Client, f), PgliteClient.layer({ dataDir }))
  const kept = (sql: PgClient.PgClient) => Effect.map(sql`select i from kept`, numbers)
  const refusal = (dataDir: string) =>
    Effect.map(sqlError(withClient(dataDir, kept)), (reason) => {
      assert.strictEqual(reason._tag, "ConnectionError")
      return reason.message ?? ""
    })
  const copy = (name: string) => {
    const path = NodePath.join(root, name)
    NodeFs.cpSync(database, path, { recursive: true })
    return path
  }

  it.effect("keeps what was committed", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
    }))

  it.effect("is refused to a second layer, and free again afterwards", () =>
    Effect.gen(function*() {
      yield* withClient(database, () =>
        Effect.gen(function*() {
          const link = NodePath.join(root, "link")
          NodeFs.symlinkSync(database, link)
          assert.include(yield* refusal(link), "already open in this process")
        }))
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
    }))

  it.effect("is refused while another process has it, and taken over from one that ended", () =>
    Effect.gen(function*() {
      const lock = NodePath.join(database, "effect-message-store.lock")
      const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"])
      NodeFs.writeFileSync(lock, `${other.pid}\n`)
      assert.include(yield* refusal(database), `process ${other.pid} has it open`)
      other.kill()
      const ended = spawnSync(process.execPath, ["-e", ""])
      NodeFs.writeFileSync(lock, `${ended.pid}\n`)
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
      assert.isFalse(NodeFs.existsSync(lock))
    }))

  it.effect("survives the kill of its process", () =>
    Effect.gen(function*() {
      const path = copy("killed")
      const program = `
        import { Effect } from "effect"
        import { SqlClient } from "effect/sql/SqlClient"
        import { PgliteClient } from ${JSON.stringify(new URL("../src/pglite/index.ts", import.meta.url).href)}
        Effect.gen(function*() {
          const sql = yield* SqlClient
          yield* sql\`insert into kept values (8)\`
          yield* sql.withTransaction(Effect.andThen(
            sql\`insert into kept values (9)\`,
            Effect.sync(() => process.kill(process.pid, "SIGKILL"))
          ))
        }).pipe(Effect.provide(PgliteClient.layer({ dataDir: ${JSON.stringify(path)} })), Effect.runPromise)`
      const killed = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" })
      assert.strictEqual(killed.signal, "SIGKILL", killed.stderr)
      assert.isTrue(NodeFs.existsSync(NodePath.join(path, "effect-message-store.lock")))
      assert.deepStrictEqual(yield* withClient(path, kept), [7, 8])
    }))

  it.effect("begins anew where the creation of the database was cut off", () =>
    Effect.gen(function*() {
      const path = NodePath.join(root, "cut-off")
      const ended = spawnSync(process.execPath, ["-e", ""])
      NodeFs.mkdirSync(NodePath.join(path, "base"), { recursive: true })
      NodeFs.writeFileSync(NodePath.join(path, "base", "1"), "half a file")
      NodeFs.writeFileSync(NodePath.join(path, "effect-message-store.lock"), `${ended.pid} creating\n`)
      const made = yield* withClient(path, (sql) => Effect.andThen(sql`create table kept as select 1 as i`, kept(sql)))
      assert.deepStrictEqual(made, [1])
      assert.deepStrictEqual(yield* withClient(path, kept), [1])
    }))

  it.effect("is refused if it cannot hold or holds no database of this version", () =>
    Effect.gen(function*() {
      const file = NodePath.join(root, "file")
      NodeFs.writeFileSync(file, "")
      assert.include(yield* refusal(file), "EEXIST")
      assert.include(yield* refusal(root), "other files and no database")
      assert.include(yield* refusal("memory://"), "not a URL")
      const corrupt = copy("corrupt")
      NodeFs.writeFileSync(NodePath.join(corrupt, "global", "pg_control"), "garbage")
      assert.include(yield* refusal(corrupt), "pg_control")
      const old = copy("old")
      NodeFs.writeFileSync(NodePath.join(old, "PG_VERSION"), "14\n")
      assert.include(yield* refusal(old), "incompatible")
      assert.isFalse(NodeFs.existsSync(NodePath.join(old, "effect-message-store.lock")))
    }))
})

describe("the lock on a directory", () => {
  let root: string
  beforeAll(() => {
    root = NodeFs.mkdtempSync(NodePath.join(NodeOs.tmpdir(), "pglite-lock-"))
  })
  afterAll(() => NodeFs.rmSync(root, { recursive: true }))

  /** Processes that are ready to open directories; each answers for the directories it is given, in their order. */
  const openers = async (count: number) => {
    const file = NodePath.join(import.meta.dirname, "support/directoryOpener.ts")
    const children = await Promise.all(Array.from({ length: count }, async () => {
      const child = spawn(process.execPath, [file, root], { stdio: ["pipe", "pipe", "inherit"] })
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
      assert.strictEqual((await lines.next()).value, "ready")
      return { child, lines }
    }))
    return {
      open: (directories: ReadonlyArray<string>) => {
        for (const { child } of children) child.stdin.write(`${directories.join("\n")}\n`)
        return Promise.all(children.map(async ({ lines }) => {
          const answers: Array<string> = []
          while (answers.length < directories.length) answers.push((await lines.next()).value ?? "ended")
          return answers
        }))
      },
      end: () =>
        Promise.all(children.map(({ child }) =>
          new Promise((resolve) => {
            child.once("exit", resolve)
            child.stdin.end()
          })
        ))
    }
  }

  const ended = spawnSync(process.execPath, ["-e", ""])
  const states: ReadonlyArray<readonly [state: string, lock: string | undefined, files: ReadonlyArray<string>]> = [
    ["new", undefined, []],
    ["left by a process that ended", `${ended.pid}\n`, ["PG_VERSION"]],
    ["left before its database was complete", `${ended.pid} creating\n`, ["base"]]
  ]

  it.each(states)("is had by one of many processes that open it at once: %s", async (state, lock, files) => {
    const directories = Array.from({ length: 150 }, (_, i) => `${state} ${i}`)
    for (const directory of directories) {
      const path = NodePath.join(root, directory)
      NodeFs.mkdirSync(path)
      if (lock !== undefined) NodeFs.writeFileSync(NodePath.join(path, "effect-message-store.lock"), lock)
      for (const file of files) NodeFs.writeFileSync(NodePath.join(path, file), "18\n")
    }
    const { end, open } = await openers(6)
    const answers = await open(directories)
    const had = directories.map((_, i) => answers.filter((each) => each[i] === "had").length)
    assert.deepStrictEqual(had, directories.map(() => 1))
    for (const directory of directories) {
      const names = NodeFs.readdirSync(NodePath.join(root, directory))
      assert.deepStrictEqual(names.filter((name) => name.startsWith("effect-")), ["effect-message-store.lock"])
    }
    await end()
  })
})
