/** The library's shape, checked on its sources: which module may import which, where SQL may stand, how long a file may be. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { parseAst } from "vitest/node"

/** The modules in the order of a message's way. Each may import from those before it. */
const modules = [
  "errors",
  "Message",
  "internal/",
  "Serializer",
  "Partitioner",
  "storage/",
  "Storage",
  "Reader",
  "Handlers",
  "subscription/",
  "Subscription",
  "Projector",
  "AggregatedStream",
  "store/",
  "MessageStore"
]

/** What else a module or a folder may import. Inside a folder, any module may import any other. */
const alsoMayImport: Readonly<Record<string, ReadonlyArray<string>>> = {
  index: [...modules, "memory/", "postgres/"],
  MessageStore: ["memory/", "postgres/"], // to build its layers
  "memory/": ["errors", "Message", "Partitioner", "storage/", "Storage"],
  "postgres/": ["errors", "Message", "internal/", "Partitioner", "storage/", "Storage"],
  "pglite/": ["postgres/"],
  "testing/": ["index", ...modules, "memory/", "postgres/", "pglite/"],
  "cli/": ["index", ...modules, "memory/", "postgres/", "pglite/"]
}

/** The packages that may be imported, `effect` aside, and where. All but `node:` are optional peers. */
const packages: Readonly<Record<string, ReadonlyArray<string>>> = {
  "node:": ["postgres/", "pglite/", "cli/"],
  "@effect/sql-pg": ["postgres/", "pglite/", "cli/"],
  "@electric-sql/pglite": ["pglite/"],
  "@effect/vitest": ["testing/"],
  vitest: ["testing/"]
}

const maxLines = 400

const sqlText =
  /\bselect\b[^]*\bfrom\b|\binsert\s+into\b|\bdelete\s+from\b|\b(create|alter|drop)\s+(table|index|schema|function)\b/i

/** Source texts by their path below src/. */
type Sources = Readonly<Record<string, string>>

/** One sentence for each violation; none when all is well. */
const violations = (sources: Sources): ReadonlyArray<string> => {
  const parsed = new Map(Object.entries(sources).map(([file, source]) => [file, parse(source)]))
  return [
    ...Array.from(parsed, ([file, { imports }]) => wrongImports(file, imports)).flat(),
    ...cycles(new Map(Array.from(parsed, ([file, { imports }]) => [file, imports.flatMap((_) => resolve(file, _))]))),
    ...Array.from(parsed).flatMap(([file, { hasSql }]) =>
      hasSql && unitOf(file) !== "postgres/" ? [`${file} contains SQL, which belongs in postgres/`] : []
    ),
    ...Object.entries(sources).flatMap(([file, source]) => {
      const lines = source.trimEnd().split("\n").length
      return lines > maxLines ? [`${file} has ${lines} lines, more than ${maxLines}`] : []
    }),
    ...Object.entries(sources).flatMap(([file, source]) =>
      /(oxlint-disable|@ts-)(?!.* -- \S)/.test(source)
        ? [`${file} silences a check without a reason: end the comment with " -- why"`]
        : []
    )
  ]
}

/** What the tables above name: a module at top level, or a folder with all that is in it. */
const unitOf = (file: string): string => file.includes("/") ? file.replace(/\/.*/, "/") : file.replace(/\.ts$/, "")

const resolve = (from: string, specifier: string): Array<string> =>
  specifier.startsWith(".") ? [path.posix.join(path.posix.dirname(from), specifier)] : []

const wrongImports = (file: string, imports: ReadonlyArray<string>): ReadonlyArray<string> => {
  const unit = unitOf(file)
  const position = modules.indexOf(unit)
  if (position < 0 && !(unit in alsoMayImport)) return [`${file} has no place in the order of modules`]
  const allowed = [unit, ...modules.slice(0, Math.max(position, 0)), ...alsoMayImport[unit] ?? []]
  return imports.flatMap((specifier) => {
    const [target] = resolve(file, specifier)
    if (target !== undefined) return allowed.includes(unitOf(target)) ? [] : [`${file} must not import ${target}`]
    if (specifier === "effect" || specifier.startsWith("effect/")) return []
    const [, homes = []] = Object.entries(packages).find(([name]) => specifier.startsWith(name)) ?? []
    return homes.includes(unit) ? [] : [`${file} must not import ${specifier}`]
  })
}

const cycles = (graph: ReadonlyMap<string, ReadonlyArray<string>>): ReadonlyArray<string> => {
  const found: Array<string> = []
  const done = new Set<string>()
  const visit = (file: string, trail: ReadonlyArray<string>): void => {
    const start = trail.indexOf(file)
    if (start >= 0) found.push(`import cycle: ${[...trail.slice(start), file].join(" > ")}`)
    if (start >= 0 || done.has(file)) return
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  return found
}

/** What a source imports, types included, and whether there is SQL in its strings. */
const parse = (text: string): { readonly imports: ReadonlyArray<string>; readonly hasSql: boolean } => {
  const imports: Array<string> = []
  let hasSql = false
  const visit = (node: Node | null): void => {
    if (typeof node !== "object" || node === null) return
    if (importTypes.has(node.type) && node.source) imports.push(node.source.value)
    if (node.type === "TaggedTemplateExpression" && node.tag?.name === "sql") hasSql = true
    if (node.type === "Literal" && sqlText.test(String(node.value))) hasSql = true
    if (node.type === "TemplateLiteral" && sqlText.test(node.quasis.map((_) => _.value.raw).join("?"))) hasSql = true
    for (const child of Object.values(node)) visit(child)
  }
  visit(parseAst(text, { lang: "ts" }) as unknown as Node)
  return { imports, hasSql }
}

const importTypes = new Set([
  "ImportDeclaration",
  "ExportAllDeclaration",
  "ExportNamedDeclaration",
  "ImportExpression",
  "TSImportType"
])

/** What `parse` looks at in a node of the syntax tree. */
interface Node {
  readonly type: string
  readonly source?: { readonly value: string } | null
  readonly tag?: { readonly name?: string }
  readonly quasis: ReadonlyArray<{ readonly value: { readonly raw: string } }>
  readonly value?: unknown
}

describe("the library", () => {
  const root = path.join(import.meta.dirname, "../src")
  const files = fs.globSync("**/*.ts", { cwd: root }).map((file) => file.split(path.sep).join("/"))

  it("keeps to its architecture", () => {
    assert.isNotEmpty(files)
    const sources = Object.fromEntries(files.map((file) => [file, fs.readFileSync(path.join(root, file), "utf8")]))
    assert.deepStrictEqual(violations(sources), [])
  })
})

describe("the check finds", () => {
  const cases: ReadonlyArray<readonly [name: string, sources: Sources, expected: ReadonlyArray<string>]> = [
    ["nothing wrong with imports that point the right way", {
      "Reader.ts": `import type { Message } from "./Message.ts"; import { Effect } from "effect"`,
      "MessageStore.ts": `import * as Postgres from "./postgres/index.ts"`,
      "postgres/index.ts": `import { Storage } from "../Storage.ts"; import "./migrations.ts"`,
      "postgres/migrations.ts": "sql`select 1 from x`",
      "pglite/index.ts": `import { PGlite } from "@electric-sql/pglite"; export * from "../postgres/index.ts"`,
      "testing/index.ts": `import { it } from "@effect/vitest"; import { layer } from "../memory/index.ts"`
    }, []],
    ["an import of a later module", { "Message.ts": `import { read } from "./Reader.ts"` }, [
      "Message.ts must not import Reader.ts"
    ]],
    ["an import of a type", { "Message.ts": `import type { Reader } from "./Reader.ts"` }, [
      "Message.ts must not import Reader.ts"
    ]],
    ["an inline import type", { "Message.ts": `export type A = import("./Reader.ts").Reader` }, [
      "Message.ts must not import Reader.ts"
    ]],
    ["a dynamic import", { "Message.ts": `const reader = await import("./Reader.ts")` }, [
      "Message.ts must not import Reader.ts"
    ]],
    ["a re-export", { "errors.ts": `export * from "./Message.ts"` }, ["errors.ts must not import Message.ts"]],
    ["a backend that knows the store", { "postgres/append.ts": `import { Reader } from "../Reader.ts"` }, [
      "postgres/append.ts must not import Reader.ts"
    ]],
    ["a module that knows a backend", { "Reader.ts": `import { Storage } from "./memory/index.ts"` }, [
      "Reader.ts must not import memory/index.ts"
    ]],
    ["an optional package in the core", { "Reader.ts": `import { PgClient } from "@effect/sql-pg"` }, [
      "Reader.ts must not import @effect/sql-pg"
    ]],
    ["a module without a place", { "helpers.ts": "" }, ["helpers.ts has no place in the order of modules"]],
    ["a cycle", {
      "memory/a.ts": `import "./b.ts"`,
      "memory/b.ts": `export { c } from "./c.ts"`,
      "memory/c.ts": `import type { A } from "./a.ts"`
    }, ["import cycle: memory/a.ts > memory/b.ts > memory/c.ts > memory/a.ts"]],
    ["an SQL template", { "Reader.ts": "const rows = sql<Row>`vacuum`" }, [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["SQL in a string", { "Reader.ts": `const query = "SELECT * FROM messages"` }, [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["SQL in a template", { "Reader.ts": "const query = `insert into ${table} values (1)`" }, [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["a long file", { "Reader.ts": "export {}\n".repeat(401) }, ["Reader.ts has 401 lines, more than 400"]],
    ["a check silenced without a reason", { "Reader.ts": "// oxlint-disable-next-line no-any\n" }, [
      `Reader.ts silences a check without a reason: end the comment with " -- why"`
    ]]
  ]

  it.each(cases)("%s", (_, sources, expected) => {
    assert.deepStrictEqual(violations(sources), expected)
  })
})
