// Every link of the built site that stays on the site leads to a page, and to a place on it, that exist.
import { existsSync, globSync, readFileSync } from "node:fs"
import { join, relative } from "node:path"
import process from "node:process"

const dist = join(import.meta.dirname, "dist")
const pages = globSync("**/*.html", { cwd: dist })
const html = new Map(pages.map((page) => [page, readFileSync(join(dist, page), "utf8")]))
const places = new Map(Array.from(html, ([page, text]) => [
  page,
  new Set(Array.from(text.matchAll(/\s(?:id|name)="([^"]+)"/g), ([, id]) => id))
]))

/** @param {string} path */
const pageAt = (path) => [path, `${path}.html`, join(path, "index.html")].find((page) => html.has(page))

const dead = Array.from(html).flatMap(([page, text]) =>
  Array.from(text.matchAll(/<a\s[^>]*href="([^"]*)"/g)).flatMap(([, href = ""]) => {
    if (/^[a-z]+:/.test(href)) return []
    const { hash, pathname } = new URL(href, `http://site/${page}`)
    const path = relative("/", decodeURI(pathname))
    const target = pageAt(path)
    if (target === undefined) return path !== "" && existsSync(join(dist, path)) ? [] : [`${page}: ${href}`]
    const place = decodeURIComponent(hash.slice(1))
    return place === "" || places.get(target)?.has(place) ? [] : [`${page}: ${href}`]
  })
)

for (const link of new Set(dead)) console.error(`dead link: ${link}`)
console.log(`${pages.length} pages, ${new Set(dead).size} dead links`)
if (dead.length > 0 || pages.length === 0) process.exit(1)
