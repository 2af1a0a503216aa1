/**
 * Links as they are written for a reader of the repository, or of the package, made to work on the site: one to a page leads to that
 * page, one to any other file leads to the repository. A link to a file that does not exist fails the build.
 */
import { existsSync, statSync } from "node:fs"
import { dirname, relative, resolve } from "node:path"
import type { MarkdownRenderer } from "vitepress"

export interface LinkOptions {
  /** The repository, and its address. */
  readonly root: string
  readonly repository: string
  /** The folder to which its pages were copied. */
  readonly collected: string
  /** The path on the site of a file of the repository, if it is a page. */
  readonly pathOf: (file: string) => string | undefined
}

export const links = (markdown: MarkdownRenderer, { collected, pathOf, repository, root }: LinkOptions): void => {
  const inRepository = `${repository}/blob/main/`
  const target = (page: string, href: string): string => {
    const [path = "", hash] = href.split("#")
    const isInRepository = path.startsWith(inRepository)
    if (!isInRepository && (path === "" || path.startsWith("/") || page.startsWith("api/") || /^[a-z]+:/.test(path))) {
      return href
    }
    const file = isInRepository
      ? resolve(root, decodeURI(path.slice(inRepository.length)))
      : resolve(root, dirname(page), decodeURI(path))
    if (!existsSync(file)) throw new Error(`${page} links to ${href}, which does not exist`)
    const name = relative(root, file)
    const found = pathOf(name)
    const suffix = hash === undefined ? "" : `#${hash}`
    if (found !== undefined) return `/${found}${suffix}`
    return `${repository}/${statSync(file).isDirectory() ? "tree" : "blob"}/main/${name}${suffix}`
  }
  markdown.core.ruler.push("repository-links", (state) => {
    const page = relative(collected, state.env.realPath ?? state.env.path)
    for (const block of state.tokens) {
      for (const token of block.children ?? []) {
        const href = token.type === "link_open" ? token.attrGet("href") : null
        if (href !== null) token.attrSet("href", target(page, href))
      }
    }
  })
}
