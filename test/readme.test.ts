/** The README shows no code that is not run: every TypeScript block stands in the example that it names. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { resolve } from "node:path"

const root = resolve(import.meta.dirname, "..")
const read = (file: string) => readFileSync(resolve(root, file), "utf8")

const blocks = Array.from(
  read("README.md").matchAll(/(?:<!-- (?<file>\S+) -->\n)?```ts\n(?<code>[^]*?)\n```/g),
  ({ groups }) => ({ file: groups?.["file"], code: groups?.["code"] ?? "" })
)

describe("README", () => {
  it("has code", () => assert.isAtLeast(blocks.length, 5))

  for (const { code, file } of blocks) {
    it(`${file}: ${code.split("\n").find((line) => line.trim() !== "")?.trim()}`, () => {
      if (file === undefined) return assert.fail("this block does not say in which example it stands")
      assert.include(read(file), `${code}\n`)
    })
  }

  it("names every script of the package", () => {
    const { scripts } = JSON.parse(read("package.json"))
    for (const [script] of read("README.md").matchAll(/npm (?:start|test|run \w+)/g)) {
      assert.property(scripts, script.replace(/npm (run )?/, ""))
    }
  })
})
