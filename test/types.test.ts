import { assert, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"

/** What the compiler says to code that uses the package's sources. */
const compile = (code: string): string => {
  const directory = fs.mkdtempSync(path.resolve("test/types/compiled-"))
  try {
    fs.writeFileSync(path.join(directory, "code.ts"), code)
    fs.writeFileSync(
      path.join(directory, "tsconfig.json"),
      JSON.stringify({ extends: "../../../tsconfig.json", include: ["code.ts"] })
    )
    return spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", directory], { encoding: "utf8" })
      .stdout
  } finally {
    fs.rmSync(directory, { recursive: true })
  }
}

it("says which accessors a store of other people's messages lacks", () => {
  const errors = (options: string) =>
    compile(`import { type DateTime, Schema } from "effect"
      import { MessageStore, type Serializer } from "effect-message-store"
      const schema = Schema.Struct({ key: Schema.String, at: Schema.DateTimeUtc })
      declare const serializer: Serializer.MessageSerializer<{ readonly key: string; readonly at: DateTime.Utc }>
      export class Store extends MessageStore.Service<Store>()("Store", { name: "store", ${options} }) {}
      export { schema, serializer }`)
  assert.match(errors("schema"), /is missing the following properties from type 'Accessors<.*>': id, time/)
  assert.match(errors("serializer"), /is missing the following properties from type 'Accessors<.*>': id, time/)
  assert.match(errors("schema, id: (message) => message.key"), /Property 'time' is missing/)
  for (const options of ["schema", "serializer"]) assert.notMatch(errors(options), /does not exist/)
  assert.strictEqual(errors("schema, id: (message) => message.key, time: (message) => message.at"), "")
})

it("compiles what must compile, and nothing else", () => {
  const tsc = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "test/types"], { encoding: "utf8" })
  assert.strictEqual(tsc.stdout + tsc.stderr, "")
  assert.strictEqual(tsc.status, 0)
})
