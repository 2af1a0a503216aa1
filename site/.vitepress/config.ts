import { copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { type DefaultTheme, defineConfig } from "vitepress"
import { links } from "./links.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const repository = "https://github.com/effect-message-store/effect-message-store"

/** The pages, by their files in the repository. */
const guide = [
  "README.md",
  "docs/journey.md",
  "docs/streams.md",
  "docs/decisions.md",
  "docs/transactions.md",
  "docs/aggregated-streams.md",
  "docs/subscriptions.md",
  "docs/process-managers.md",
  "docs/projections.md",
  "docs/archive.md",
  "docs/forgetting.md",
  "docs/web.md",
  "docs/schema-evolution.md",
  "docs/testing.md"
]
const production = [
  "docs/operating.md",
  "docs/cli.md",
  "docs/dashboard.md",
  "docs/telemetry.md",
  "docs/availability.md",
  "docs/scale.md",
  "docs/python.md",
  "docs/reference.md",
  "docs/limits.md",
  "bench/README.md"
]
const project = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
const pages = [...guide, ...production, ...project]

/** Where a page is on the site. */
const pathOf = (file: string): string =>
  file === "README.md" ? "index.md" : file === "bench/README.md" ? "bench.md" : file

// VitePress wants its pages below this folder. The API reference is there already, typedoc made it.
const collected = resolve(root, "site/pages")
for (const file of pages) {
  mkdirSync(dirname(resolve(collected, file)), { recursive: true })
  copyFileSync(resolve(root, file), resolve(collected, file))
}

/** Where the heading of a page is not its name. */
const titles: Readonly<Record<string, string>> = { "README.md": "Introduction", "CHANGELOG.md": "Changelog" }

const items = (files: ReadonlyArray<string>): Array<DefaultTheme.SidebarItem> =>
  files.map((file) => ({
    text: titles[file] ?? /^# (.+)$/m.exec(readFileSync(resolve(root, file), "utf8"))?.[1]?.replaceAll("`", "") ?? file,
    link: `/${pathOf(file).replace(/(index)?\.md$/, "")}`
  }))

const apiSidebar = resolve(root, "site/pages/api/typedoc-sidebar.json")
/** The modules of the package, and what each exports, without the level that typedoc has in between. */
const withoutGroups = (entries: Array<DefaultTheme.SidebarItem>): Array<DefaultTheme.SidebarItem> =>
  entries.flatMap(({ items: below, ...entry }) => {
    const inner = withoutGroups(below ?? [])
    return entry.link === undefined ? inner : [{ ...entry, collapsed: false, ...inner.length > 0 && { items: inner } }]
  })

const api: Array<DefaultTheme.SidebarItem> = existsSync(apiSidebar)
  ? withoutGroups(JSON.parse(readFileSync(apiSidebar, "utf8")))
  : []

export default defineConfig({
  title: "effect-message-store",
  description: "The message store for Effect applications on PostgreSQL",
  lang: "en",
  cleanUrls: true,
  srcDir: "pages",
  outDir: "dist",
  cacheDir: ".vitepress/cache",
  rewrites: (file) => pathOf(file),
  themeConfig: {
    outline: [2, 3],
    search: { provider: "local" },
    socialLinks: [{ icon: "github", link: repository }],
    nav: [
      { text: "Guide", link: "/docs/journey" },
      { text: "Reference", link: "/docs/reference" },
      { text: "API", link: "/api/" }
    ],
    sidebar: {
      "/api/": [{ text: "API", items: api }],
      "/": [
        { text: "Guide", items: items(guide) },
        { text: "In production", items: items(production) },
        { text: "The project", items: items(project) }
      ]
    }
  },
  markdown: {
    config: (markdown) => {
      links(markdown, {
        root,
        collected,
        repository,
        pathOf: (file) => pages.includes(file) ? pathOf(file) : undefined
      })
      markdown.core.ruler.push("plain-text", (state) => {
        for (const token of state.tokens) if (token.info === "tree") token.info = "txt"
      })
    }
  }
})
