// Lines of src/ by room, and the longest function of each: `node scripts/lines.mjs [COMMIT ...]`, the working tree if
// none is named. A room is a folder below src/, or the modules at its top. Functions are counted with their comments;
// a layer or a test suite that is one expression around smaller functions counts as one too.
import { execFileSync } from "node:child_process"
import { globSync, readFileSync } from "node:fs"
import process from "node:process"
import { parseAst } from "vite"

/** @param {string | undefined} commit @returns {Array<[file: string, text: string]>} */
const sources = (commit) => {
  if (commit === undefined) return globSync("src/**/*.ts").map((file) => [file, readFileSync(file, "utf8")])
  const git = (/** @type {string[]} */ ...args) => execFileSync("git", args, { encoding: "utf8", maxBuffer: 2 ** 26 })
  const files = git("ls-tree", "-r", "--name-only", commit, "src/").trim().split("\n")
  return files.filter((file) => file.endsWith(".ts")).map((file) => [file, git("show", `${commit}:${file}`)])
}

/** @param {string} file */
const roomOf = (file) => file.replace(/^src\//, "").replace(/[^/]*$/, "").replace(/\/$/, "") || "(modules)"

/**
 * The functions of a source: the name that each was given, and how many lines it has.
 *
 * @param {string} text
 */
const functions = (text) => {
  /** @type {Array<{ name: string, lines: number }>} */
  const found = []
  /** @param {number} from @param {number} to */
  const lines = (from, to) => text.slice(from, to).split("\n").length
  /** @param {any} node @param {string} name */
  const visit = (node, name) => {
    if (typeof node !== "object" || node === null) return
    const own = node.id?.name ?? node.key?.name ?? name
    if (/^(Function|ArrowFunction)/.test(node.type ?? "")) found.push({ name: own, lines: lines(node.start, node.end) })
    for (const child of Object.values(node)) visit(child, own)
  }
  visit(parseAst(text, { lang: "ts" }), "?")
  return found
}

for (const commit of process.argv.length > 2 ? process.argv.slice(2) : [undefined]) {
  /** @type {Map<string, { files: number, lines: number, longest: string, length: number }>} */
  const rooms = new Map()
  for (const [file, text] of sources(commit)) {
    const room = rooms.get(roomOf(file)) ?? { files: 0, lines: 0, longest: "", length: 0 }
    room.files++
    room.lines += text.trimEnd().split("\n").length
    for (const { lines, name } of functions(text)) {
      if (lines > room.length) Object.assign(room, { longest: `${name} in ${file.replace(/.*\//, "")}`, length: lines })
    }
    rooms.set(roomOf(file), room)
  }
  const rows = [...rooms].toSorted(([a], [b]) => a < b ? -1 : 1)
  const total = rows.reduce((sum, [, { lines }]) => sum + lines, 0)
  console.log(`\n${commit ?? "working tree"}: ${total} lines\n`)
  console.log("| room | files | lines | longest function | its lines |\n| --- | ---: | ---: | --- | ---: |")
  for (const [room, { files, length, lines, longest }] of rows) {
    console.log(`| ${room} | ${files} | ${lines} | ${longest} | ${length} |`)
  }
}
