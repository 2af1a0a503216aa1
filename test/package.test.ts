/** What is published: installed into an empty project, the README's quick start compiles and runs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { execFileSync, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll, inject } from "vitest"
import { databaseLayer } from "./support/database.ts"

const root = path.resolve(import.meta.dirname, "..")
const project = fs.mkdtempSync(path.join(os.tmpdir(), "quick-start-"))
const modules = path.join(project, "node_modules")
const tsc = path.join(root, "node_modules/.bin/tsc")
const target = ["--module", "nodenext", "--target", "es2024", "--lib", "es2024", "--types", "node"]
const options = ["--strict", "--noEmit", ...target]

const run = (command: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}) => {
  const { DATABASE_URL: _, ...inherited } = process.env
  return execFileSync(command, args, { cwd: project, encoding: "utf8", env: { ...inherited, ...env }, stdio: "pipe" })
}

beforeAll(() => {
  execFileSync("npm", ["pack", "--silent", "--pack-destination", project], { cwd: root, encoding: "utf8" })
  const [archive = ""] = fs.readdirSync(project).filter((name) => name.endsWith(".tgz"))
  const installed = path.join(modules, "effect-message-store")
  fs.mkdirSync(installed, { recursive: true })
  run("tar", ["-xzf", archive, "--strip-components=1", "-C", installed])
  // Nothing but dependencies, peers and what compiles; a symlink would let everything else of this repository be found.
  for (
    const peer of [
      "effect",
      "@effect/platform-node-shared",
      "ws",
      "idiomorph",
      "uplot",
      "@effect/sql-pg",
      "@electric-sql/pglite",
      "@types/node",
      "undici-types"
    ]
  ) {
    fs.cpSync(path.join(root, "node_modules", peer), path.join(modules, peer), { recursive: true, dereference: true })
  }
  fs.copyFileSync(path.join(root, "examples/00-quick-start.ts"), path.join(project, "quickStart.ts"))
  fs.cpSync(path.join(root, "test/types/declarations"), project, { recursive: true })
  fs.writeFileSync(path.join(project, "package.json"), JSON.stringify({ type: "module" }))
})

afterAll(() => fs.rmSync(project, { recursive: true, force: true }))

describe("the package", () => {
  it("type-checks in the README's quick start, under strict", () => {
    run(tsc, [...options, "--skipLibCheck", "quickStart.ts"])
  })

  it("has declarations that are right in themselves", () => {
    // Those of PGlite and of Effect ask for types of browsers: of errors, only those of this package count.
    const { stdout } = spawnSync(tsc, [...options, "quickStart.ts"], { cwd: project, encoding: "utf8" })
    const errors = stdout.split("\n").filter((line) => line.includes("error"))
    assert.deepStrictEqual(errors.filter((line) => line.includes("effect-message-store/")), [])
  })

  it("gives every type a name that the declarations of others can use", () => {
    const declarations = ["--strict", "--declaration", "--emitDeclarationOnly", "--rewriteRelativeImportExtensions"]
    const { stdout } = spawnSync(tsc, [...declarations, ...target, "exported.ts"], { cwd: project, encoding: "utf8" })
    // As above: those of this package, and of the module that uses it.
    const errors = stdout.split("\n").filter((line) => /^(?!\s|node_modules\/(?!effect-message-store\/))./.test(line))
    assert.deepStrictEqual(errors, [])
  })

  it("has a command", () => {
    const { bin, version }: { readonly bin: Readonly<Record<string, string>>; readonly version: string } = JSON.parse(
      fs.readFileSync(path.join(modules, "effect-message-store/package.json"), "utf8")
    )
    const program = path.join(modules, "effect-message-store", bin["effect-message-store"] ?? "")
    assert.match(fs.readFileSync(program, "utf8"), /^#!\/usr\/bin\/env node\n/)
    assert.include(run(process.execPath, [program, "--version"]), version)
  })

  it("has what its dashboard sends to browsers", () => {
    const assets = path.join(modules, "effect-message-store/dist/dashboard/assets.js")
    const print = `const { load } = await import(${JSON.stringify(assets)}); console.log(load().files.size)`
    assert.strictEqual(run(process.execPath, ["--input-type=module", "--eval", print]).trim(), "6")
  })

  const quickStart = (env: NodeJS.ProcessEnv) => {
    const lines = run(process.execPath, ["quickStart.ts"], env).trim().split("\n")
    const words = lines.map((line) => line.split(" ").slice(0, 2).join(" "))
    assert.deepStrictEqual(words, ["1 OrderPlaced", "2 OrderShipped"])
  }

  it("runs the README's quick start on PGlite", () => quickStart({}))

  it.live("runs the README's quick start on PostgreSQL", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
      const url = new URL(inject("postgresUrl"))
      url.pathname = `/${row?.name}`
      quickStart({ DATABASE_URL: url.href })
      assert.strictEqual((yield* sql`select from depeche_msgs_orders`).length, 2)
    }).pipe(Effect.provide(databaseLayer())))
})
