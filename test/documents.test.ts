/**
 * The documents say what is so: every TypeScript block stands in a file that the tests run, every link leads somewhere,
 * every script exists, and the tree of ARCHITECTURE.md is that of the folders.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "..")
const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8")
const list = (pattern: string, cwd: string = root) =>
  fs.globSync(pattern, { cwd }).map((file) => file.split(path.sep).join("/")).toSorted()

const documents = [...list("*.md"), ...list("docs/**/*.md"), ...list("bench/*.md")]
  .filter((file) => !file.includes("node_modules"))

/** What the tests run: the examples that these tests name, and the tests themselves. */
const isTested = (file: string): boolean =>
  file.startsWith("test/") ||
  file.startsWith("examples/shop/") || // by the programs that test/shop.test.ts starts
  [
    "test/cluster.test.ts",
    "test/examples.test.ts",
    "test/operating.test.ts",
    "test/package.test.ts",
    "test/telemetry.test.ts"
  ].some((test) => read(test).includes(path.basename(file)))

const blocksOf = (document: string) =>
  Array.from(
    read(document).matchAll(/(?:<!-- (?<file>\S+) -->\n)?```ts\n(?<code>[^]*?)\n```/g),
    ({ groups }) => ({ file: groups?.["file"], code: groups?.["code"] ?? "" })
  )

/** Without code: what is left has the links and the headings. */
const proseOf = (document: string) => read(document).replaceAll(/^```[^]*?^```$/gm, "")

/** Anchors as GitHub makes them. */
const anchorsOf = (document: string) => {
  const seen = new Map<string, number>()
  return Array.from(proseOf(document).matchAll(/^#+ (.+)$/gm), ([, heading = ""]) => {
    const slug = heading.trim().toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
    const count = seen.get(slug) ?? 0
    seen.set(slug, count + 1)
    return count === 0 ? slug : `${slug}-${count}`
  })
}

const { files, homepage } = JSON.parse(read("package.json"))

/** What is not in the package is linked to in the repository, for those who read what npm has installed. */
const repository = `${homepage.replace(/#.*$/, "")}/blob/main/`

/** Links to files, from the document that has them or from the repository's root. */
const linksOf = (document: string) =>
  Array.from(
    proseOf(document).replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, "")).matchAll(/\]\(([^)\s]+)\)/g),
    ([, target = ""]) => target
  ).filter((target) => target.startsWith(repository) || !/^[a-z]+:/.test(target))

/** The file that a link leads to, as a path from the root, and the anchor in it. */
const resolve = (document: string, link: string) => {
  const [file = "", anchor] = link.split("#")
  if (file.startsWith(repository)) return { file: file.slice(repository.length), anchor }
  return { file: file === "" ? document : path.posix.join(path.posix.dirname(document), file), anchor }
}

describe("snippets", () => {
  it("are there", () => assert.isAtLeast(documents.flatMap(blocksOf).length, 30))

  for (const document of documents) {
    for (const { code, file } of blocksOf(document)) {
      it(`${document}, ${file}: ${code.split("\n").find((line) => line.trim() !== "")?.trim()}`, () => {
        if (file === undefined) return assert.fail("this block does not say in which file it stands")
        assert.isTrue(isTested(file), `${file} is run by no test`)
        assert.include(read(file), `${code}\n`)
      })
    }
  }
})

describe("links", () => {
  it.each(documents)("of %s lead somewhere", (document) => {
    for (const link of linksOf(document)) {
      const { anchor, file } = resolve(document, link)
      assert.isTrue(fs.existsSync(path.join(root, file)), `${link}: there is no ${file}`)
      if (anchor !== undefined) assert.include(anchorsOf(file), anchor, link)
    }
  })

  it("of what is in the package lead to files in it, or to the repository", () => {
    const isPacked = (file: string) => files.some((each: string) => file === each || file.startsWith(`${each}/`))
    for (const document of documents.filter(isPacked)) {
      const leading = linksOf(document).filter((link) => !link.startsWith(repository))
      assert.deepStrictEqual(leading.filter((link) => !isPacked(resolve(document, link).file)), [], document)
    }
  })

  it("lead from the README to every guide", () => {
    const reached = new Set(["README.md"])
    for (const document of reached) {
      for (const { file } of linksOf(document).map((link) => resolve(document, link))) {
        if (documents.includes(file)) reached.add(file)
      }
    }
    assert.deepStrictEqual(list("docs/**/*.md").filter((file) => !reached.has(file)), [])
  })
})

describe("commands", () => {
  it.each(documents)("of %s are scripts of the package", (document) => {
    const { scripts } = JSON.parse(read("package.json"))
    for (const [script] of read(document).matchAll(/npm (?:start|test|run [\w:-]+)/g)) {
      assert.property(scripts, script.replace(/npm (run )?/, ""))
    }
  })

  it("of the README are those one begins with", () => {
    const commands = Array.from(read("README.md").matchAll(/npm (?:start|test|run \w+)/g), ([command]) => command)
    assert.includeMembers(commands, ["npm start", "npm test", "npm run check", "npm run bench"])
  })
})

describe("the tree of ARCHITECTURE.md", () => {
  const [, tree = ""] = /^```tree\nsrc\/\n([^]*?)^```$/m.exec(read("ARCHITECTURE.md")) ?? []
  /** Paths below src/; a folder ends with a slash. An entry is indented by two for each folder that it is in. */
  const entries: Array<string> = []
  const folders: Array<string> = []
  for (const [, indent = "", names = ""] of tree.matchAll(/^((?: {2})+)(\S+(?: \S+)*)/gm)) {
    folders.length = indent.length / 2 - 1
    for (const name of names.split(" ")) entries.push(folders.join("") + name)
    if (names.endsWith("/")) folders.push(names)
  }
  const source = path.join(root, "src")

  it("has every folder, and every public module", () => {
    const inside = list("**/*.ts", source)
    const found = new Set(inside.filter((file) => !file.includes("/")))
    for (const file of inside) {
      const parts = file.split("/").slice(0, -1)
      parts.forEach((_, i) => found.add(`${parts.slice(0, i + 1).join("/")}/`))
    }
    assert.deepStrictEqual(
      entries.filter((entry) => entry.endsWith("/") || !entry.includes("/")).toSorted(),
      Array.from(found).toSorted()
    )
  })

  it("names no file that is not there", () => {
    for (const entry of entries) assert.isTrue(fs.existsSync(path.join(source, entry)), entry)
  })
})
