/**
 * What lint cannot see of the library's shape: where SQL stands, what is imported late, and why a check is silenced. The
 * rest (which module may import which, cycles, the length of files) are rules in `oxlint.config.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { parseAst } from "vitest/node"

const sqlText =
  /\bselect\b[^]*\bfrom\b|\binsert\s+into\b|\bdelete\s+from\b|\b(create|alter|drop)\s+(table|index|schema|function)\b/i

const schemaCompilers = /^effect\/schema\/Schema\w*Compiler$/

/** One sentence for each violation in a source, named by its path below src/; none when all is well. */
const violations = (file: string, source: string): ReadonlyArray<string> => {
  const { hasSql, lateImports } = parse(source)
  return [
    ...hasSql && !file.startsWith("postgres/") ? [`${file} contains SQL, which belongs in postgres/`] : [],
    ...lateImports
      // An optional peer is imported when it is needed, and so is what is large and unstable.
      .filter((specifier) => specifier.startsWith(".") || !/^(postgres|pglite)\//.test(file))
      .filter((specifier) => !(schemaCompilers.test(specifier) && file === "internal/compile.ts"))
      .map((specifier) => `${file} imports ${specifier} late`),
    ...(/^import (?!type).*"effect\/schema\/Schema\w*Compiler/m.test(source)
      ? [`${file} imports Effect's schema compiler, which is large: internal/compile.ts does, late`]
      : []),
    ...(/(oxlint-disable|@ts-)(?!.* -- \S)/.test(source)
      ? [`${file} silences a check without a reason: end the comment with " -- why"`]
      : [])
  ]
}

/** Whether there is SQL in the strings of a source, and what it imports by a call. */
const parse = (text: string): { readonly hasSql: boolean; readonly lateImports: ReadonlyArray<string> } => {
  const lateImports: Array<string> = []
  let hasSql = false
  const visit = (node: Node | null): void => {
    if (typeof node !== "object" || node === null) return
    if (node.type === "ImportExpression") lateImports.push(node.source?.value ?? "something")
    if (node.type === "TaggedTemplateExpression" && node.tag?.name === "sql") hasSql = true
    if (node.type === "Literal" && sqlText.test(String(node.value))) hasSql = true
    if (node.type === "TemplateLiteral" && sqlText.test(node.quasis.map((_) => _.value.raw).join("?"))) hasSql = true
    for (const child of Object.values(node)) visit(child)
  }
  visit(parseAst(text, { lang: "ts" }) as unknown as Node)
  return { lateImports, hasSql }
}

/** What `parse` looks at in a node of the syntax tree. */
interface Node {
  readonly type: string
  readonly source?: { readonly value?: string } | null
  readonly tag?: { readonly name?: string }
  readonly quasis: ReadonlyArray<{ readonly value: { readonly raw: string } }>
  readonly value?: unknown
}

describe("the library", () => {
  const root = path.join(import.meta.dirname, "../src")
  const files = fs.globSync("**/*.ts", { cwd: root }).map((file) => file.split(path.sep).join("/"))

  it("keeps to its architecture", () => {
    assert.isNotEmpty(files)
    const found = files.flatMap((file) => violations(file, fs.readFileSync(path.join(root, file), "utf8")))
    assert.deepStrictEqual(found, [])
  })
})

describe("the check finds", () => {
  const cases: ReadonlyArray<
    readonly [name: string, file: string, source: string, expected: ReadonlyArray<string>]
  > = [
    ["nothing wrong with SQL in postgres/", "postgres/migrations.ts", "sql`select 1 from x`", []],
    ["nothing wrong with a late import in pglite/", "pglite/client.ts", `await import("@electric-sql/pglite")`, []],
    ["a late import of a module", "pglite/client.ts", `await import("./wire.ts")`, [
      "pglite/client.ts imports ./wire.ts late"
    ]],
    ["Effect's schema compiler", "Reader.ts", "import * as JIT from \"effect/schema/SchemaJITCompiler\"", [
      "Reader.ts imports Effect's schema compiler, which is large: internal/compile.ts does, late"
    ]],
    [
      "nothing wrong with it where it is late, or a type",
      "internal/compile.ts",
      `import type * as Compiler from "effect/schema/SchemaCompiler"\nawait import("effect/schema/SchemaCompiler")`,
      []
    ],
    ["an SQL template", "Reader.ts", "const rows = sql<Row>`vacuum`", [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["SQL in a string", "Reader.ts", `const query = "SELECT * FROM messages"`, [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["SQL in a template", "Reader.ts", "const query = `insert into ${table} values (1)`", [
      "Reader.ts contains SQL, which belongs in postgres/"
    ]],
    ["a dynamic import", "Message.ts", `const reader = await import("./Reader.ts")`, [
      "Message.ts imports ./Reader.ts late"
    ]],
    ["a check silenced without a reason", "Reader.ts", "// oxlint-disable-next-line no-any\n", [
      `Reader.ts silences a check without a reason: end the comment with " -- why"`
    ]]
  ]

  it.each(cases)("%s", (_, file, source, expected) => {
    assert.deepStrictEqual(violations(file, source), expected)
  })
})
