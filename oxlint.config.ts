/** The rules of the code. What they cannot see is in `test/architecture.test.ts`; that each one bites, in `test/lint.test.ts`. */
import type { OxlintConfig, OxlintOverride } from "oxlint"

/** The library's modules in the order of a message's way, and its folders. Each may import from those before it. */
const modules = [
  "errors/",
  "errors",
  "KeyEncryption",
  "Personal",
  "Fold",
  "Decider",
  "Message",
  "Decision",
  "internal/",
  "Serializer",
  "Partitioner",
  "storage/",
  "SubjectKeys",
  "Storage",
  "personal/",
  "Reader",
  "Handlers",
  "subscription/",
  "Subscription",
  "projection/",
  "Projection",
  "Projector",
  "aggregatedStream/",
  "AggregatedStream",
  "store/",
  "MessageStore",
  "archive/",
  "Archive",
  "operator/",
  "Operator",
  "dashboard/",
  "Dashboard"
]

/** What else a module or a folder may import. */
const alsoMayImport: Readonly<Record<string, ReadonlyArray<string>>> = {
  "errors/": ["internal/"], // to print names
  errors: ["internal/"], // to print names
  Archive: ["postgres/"], // to open a store by its name
  MessageStore: ["memory/", "postgres/"], // to build its layers
  Operator: ["postgres/"], // to open a store by its name
  Projection: ["postgres/"], // to tell its migrations
  Subscription: ["postgres/"], // to tell its migrations
  index: [...modules, "memory/", "postgres/"],
  "memory/": ["errors", "KeyEncryption", "Message", "internal/", "Partitioner", "storage/", "Storage"],
  "postgres/": ["errors", "KeyEncryption", "Message", "internal/", "Partitioner", "storage/", "Storage"],
  "pglite/": ["postgres/"],
  "testing/": ["index", ...modules, "memory/", "postgres/", "pglite/"],
  "cli/": ["index", ...modules, "memory/", "postgres/", "pglite/"]
}

/** The packages that may be imported, `effect` aside, and where. All but node's own are optional peers. */
const packages: Readonly<Record<string, ReadonlyArray<string>>> = {
  "postgres/": ["node:*", "@effect/sql-pg"],
  "pglite/": ["node:*", "@effect/sql-pg", "@electric-sql/pglite"],
  "testing/": ["@effect/vitest", "vitest"],
  "dashboard/": ["node:*", "idiomorph", "uplot"],
  "cli/": ["node:*", "@effect/platform-node-shared", "@effect/sql-pg"]
}

const all = Array.from(new Set([...modules, ...Object.keys(alsoMayImport)]))

/** What the files of a unit may import; those of a folder at this depth below `src/`. */
const importsOf = (unit: string, depth: number): OxlintOverride => {
  const allowed = [unit, ...modules.slice(0, Math.max(modules.indexOf(unit), 0)), ...alsoMayImport[unit] ?? []]
  const forbidden = all.filter((other) => !allowed.includes(other))
  const names = forbidden.map((other) => other.endsWith("/") ? other : `${other}\\.ts$`)
  const mayImport = ["effect", ...packages[unit] ?? []]
  return {
    files: [depth === 0 ? `src/${unit}.ts` : `src/${unit}${"*/".repeat(depth - 1)}*.ts`],
    rules: {
      "eslint/no-restricted-imports": ["error", {
        patterns: [
          ...names.length > 0
            ? [{
              regex: `^${depth === 0 ? "\\./" : "\\.\\./".repeat(depth)}(?:${names.join("|")})`,
              message: `${unit} does not know it: see the order of modules in oxlint.config.ts`
            }]
            : [],
          {
            group: ["*", "!./**", "!../**", ...mayImport.flatMap((name) => [`!${name}`, `!${name}/**`])],
            message: `${unit} may import these packages alone: ${mayImport.join(", ")}`
          }
        ]
      }]
    }
  }
}

const config: OxlintConfig = {
  plugins: ["typescript", "unicorn", "oxc", "import", "promise"],
  categories: {
    correctness: "error",
    suspicious: "error"
  },
  options: {
    denyWarnings: true,
    reportUnusedDisableDirectives: "error"
  },
  ignorePatterns: ["node_modules", "dist", "coverage", ".data", "site/pages"],
  rules: {
    "eslint/eqeqeq": "error",
    "eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    "eslint/no-var": "error",
    "eslint/prefer-const": "error",
    "import/no-cycle": "error",
    "import/no-default-export": "error",
    "import/no-duplicates": "error",
    "typescript/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
    "typescript/no-explicit-any": "error",
    "typescript/no-import-type-side-effects": "error",
    "typescript/no-non-null-assertion": "error",
    "unicorn/prefer-node-protocol": "error",

    "eslint/no-shadow": ["error", { allow: ["it"] }],
    "eslint/no-underscore-dangle": ["error", { allow: ["_tag"] }],
    // TypeScript checks what is imported from where; these would look into dist/, as it was built last.
    "import/default": "off",
    "import/named": "off",
    "import/namespace": "off",
    "import/no-unassigned-import": "off",
    "unicorn/consistent-function-scoping": "off"
  },
  overrides: [
    {
      files: ["*.config.ts", "site/.vitepress/**"],
      rules: { "import/no-default-export": "off" }
    },
    {
      files: ["src/**"],
      rules: { "eslint/max-lines": ["error", { max: 400 }] }
    },
    {
      // Where the overrides below have none for it, a module has no place.
      files: ["src/**"],
      rules: {
        "eslint/no-restricted-imports": ["error", {
          patterns: [{ group: ["**"], message: "this module has no place in the order of modules of oxlint.config.ts" }]
        }]
      }
    },
    ...all.flatMap((unit) =>
      unit.endsWith("/") ? [1, 2, 3].map((depth) => importsOf(unit, depth)) : [importsOf(unit, 0)]
    )
  ]
}

export default config
