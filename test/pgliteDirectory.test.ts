import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { spawn, spawnSync } from "node:child_process"
import * as NodeFs from "node:fs"
import * as NodeOs from "node:os"
import * as NodePath from "node:path"
import { createInterface } from "node:readline/promises"

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
