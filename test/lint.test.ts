/** Each rule of `oxlint.config.ts` that stands for the shape of the library finds what it forbids. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll } from "vitest"

const root = path.resolve(import.meta.dirname, "..")
const project = fs.mkdtempSync(path.join(os.tmpdir(), "lint-"))
afterAll(() => fs.rmSync(project, { recursive: true }))
fs.copyFileSync(path.join(root, "oxlint.config.ts"), path.join(project, "oxlint.config.ts"))
fs.writeFileSync(path.join(project, "package.json"), JSON.stringify({ type: "module" }))

interface Report {
  readonly diagnostics: ReadonlyArray<{ readonly filename: string; readonly code: string; readonly message: string }>
}

/** What is found in these files, as `file: rule, import`. */
const found = (sources: Readonly<Record<string, string>>): ReadonlyArray<string> => {
  const src = path.join(project, "src")
  fs.rmSync(src, { recursive: true, force: true })
  for (const [file, source] of Object.entries(sources)) {
    fs.mkdirSync(path.dirname(path.join(src, file)), { recursive: true })
    fs.writeFileSync(path.join(src, file), source)
  }
  const oxlint = path.join(root, "node_modules/oxlint/bin/oxlint")
  const { stdout } = spawnSync(process.execPath, [oxlint, "--format", "json", "src"], {
    cwd: project,
    encoding: "utf8"
  })
  const { diagnostics }: Report = JSON.parse(stdout)
  return diagnostics.filter(({ code }) => code !== "eslint(no-unused-vars)").map(({ code, filename, message }) =>
    `${filename.replace(/^src\//, "")}: ${code.replace(/^.*\((.*)\)$/, "$1")}${/^ ?'.*?'/.exec(message)?.[0] ?? ""}`
  )
}

const restricted = "no-restricted-imports"

describe("lint finds", () => {
  const cases: ReadonlyArray<
    readonly [name: string, sources: Readonly<Record<string, string>>, expected: ReadonlyArray<string>]
  > = [
    ["nothing wrong with imports that point the right way", {
      "Reader.ts": `export type { Message } from "./Message.ts"; export { Effect } from "effect"`,
      "MessageStore.ts": `export * as Postgres from "./postgres/storage.ts"`,
      "postgres/storage.ts": `export { Storage } from "../Storage.ts"; export * from "./client/session.ts"`,
      "postgres/client/session.ts":
        `export { transient } from "../../internal/transient.ts"; export * from "../claims.ts"`,
      "postgres/migrations/migrations.ts": `export * from "./store/0001_messages.ts"`,
      "postgres/migrations/store/0001_messages.ts": `export * from "../../objects.ts"; export * from "node:fs"`,
      "pglite/index.ts": `export { PGlite } from "@electric-sql/pglite"; export * from "../postgres/storage.ts"`,
      "testing/store/index.ts": `export { it } from "@effect/vitest"; export { layer } from "../../memory/storage.ts"`
    }, []],
    ["an import of a later module", { "Message.ts": `export { read } from "./Reader.ts"` }, [
      `Message.ts: ${restricted}'./Reader.ts'`
    ]],
    ["an import of a type", { "Message.ts": `import type { Reader } from "./Reader.ts"` }, [
      `Message.ts: ${restricted}'./Reader.ts'`
    ]],
    ["an inline import type", { "Message.ts": `export type A = import("./Reader.ts").Reader` }, [
      "Message.ts: consistent-type-imports"
    ]],
    ["a re-export", { "errors.ts": `export * from "./Message.ts"` }, [`errors.ts: ${restricted}'./Message.ts'`]],
    ["a backend that knows the store", { "postgres/append.ts": `export { Reader } from "../Reader.ts"` }, [
      `postgres/append.ts: ${restricted}'../Reader.ts'`
    ]],
    ["a folder of a backend that knows the store", {
      "postgres/migrations/store/0001.ts": `export { Reader } from "../../../store/encode.ts"`
    }, [
      `postgres/migrations/store/0001.ts: ${restricted}'../../../store/encode.ts'`
    ]],
    ["a backend that knows another", { "memory/storage.ts": `export { sql } from "../postgres/append.ts"` }, [
      `memory/storage.ts: ${restricted}'../postgres/append.ts'`
    ]],
    ["a module that knows a backend", { "Reader.ts": `export { Storage } from "./memory/storage.ts"` }, [
      `Reader.ts: ${restricted}'./memory/storage.ts'`
    ]],
    ["an optional package in the core", { "Reader.ts": `export { PgClient } from "@effect/sql-pg"` }, [
      `Reader.ts: ${restricted}'@effect/sql-pg'`
    ]],
    ["a package that nobody may import", { "postgres/append.ts": `export { Pool } from "pg"` }, [
      `postgres/append.ts: ${restricted}'pg'`
    ]],
    ["a module of node in the core", { "store/update.ts": `export * from "node:fs"` }, [
      `store/update.ts: ${restricted}'node:fs'`
    ]],
    ["a module without a place", { "helpers.ts": `export * from "./errors.ts"` }, [
      `helpers.ts: ${restricted}'./errors.ts'`
    ]],
    ["a folder without a place", { "utils/text.ts": `export * from "effect"` }, [
      `utils/text.ts: ${restricted}'effect'`
    ]],
    ["a cycle", {
      "memory/a.ts": `export { b } from "./b.ts"`,
      "memory/b.ts": `export { c as b } from "./c.ts"`,
      "memory/c.ts": `export { b as c } from "./a.ts"`
    }, ["memory/a.ts: no-cycle", "memory/b.ts: no-cycle", "memory/c.ts: no-cycle"]],
    ["a long file", { "Reader.ts": `${"// a line\n".repeat(400)}export const a = 1\n` }, ["Reader.ts: max-lines"]],
    ["nothing wrong with a file of 400 lines", { "Reader.ts": `${"// a line\n".repeat(399)}export const a = 1\n` }, []]
  ]

  it.each(cases)("%s", (_, sources, expected) => {
    assert.deepStrictEqual(found(sources).toSorted(), expected.toSorted())
  })
})
