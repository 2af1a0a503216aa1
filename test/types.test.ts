import { assert, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"

/** What the compiler says to each of these modules, which use the package's sources. */
const compile = (modules: ReadonlyArray<string>): ReadonlyArray<string> => {
  const directory = fs.mkdtempSync(path.resolve("test/types/compiled-"))
  try {
    for (const [i, code] of modules.entries()) fs.writeFileSync(path.join(directory, `module${i}.ts`), code)
    fs.writeFileSync(
      path.join(directory, "tsconfig.json"),
      JSON.stringify({ extends: "../../../tsconfig.json", include: ["*.ts"] })
    )
    const { stdout } = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", directory], {
      encoding: "utf8"
    })
    const errors = stdout.split(/\n(?=\S)/)
    assert.deepStrictEqual(errors.filter((error) => error !== "" && !/\/module\d\.ts\(/.test(error)), [])
    return modules.map((_, i) => errors.filter((error) => error.includes(`/module${i}.ts(`)).join("\n"))
  } finally {
    fs.rmSync(directory, { recursive: true })
  }
}

it("says which accessors a store of other people's messages lacks", () => {
  const complete = "schema, id: (message) => message.key, time: (message) => message.at"
  const [bySchema = "", bySerializer = "", withoutTime = "", nothing] = compile(
    ["schema", "serializer", "schema, id: (message) => message.key", complete].map((options) =>
      `import { type DateTime, Schema } from "effect"
      import { MessageStore, type Serializer } from "effect-message-store"
      const schema = Schema.Struct({ key: Schema.String, at: Schema.DateTimeUtc })
      declare const serializer: Serializer.MessageSerializer<{ readonly key: string; readonly at: DateTime.Utc }>
      export class Store extends MessageStore.Service<Store>()("Store", { name: "store", ${options} }) {}
      export { schema, serializer }`
    )
  )
  assert.match(bySchema, /is missing the following properties from type 'Accessors<.*>': id, time/)
  assert.match(bySerializer, /is missing the following properties from type 'Accessors<.*>': id, time/)
  assert.match(withoutTime, /Property 'time' is missing/)
  for (const errors of [bySchema, bySerializer]) assert.notMatch(errors, /does not exist/)
  assert.strictEqual(nothing, "")
})

it("compiles what must compile, and nothing else", () => {
  const tsc = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "test/types"], { encoding: "utf8" })
  assert.strictEqual(tsc.stdout + tsc.stderr, "")
  assert.strictEqual(tsc.status, 0)
})
