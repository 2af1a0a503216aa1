/** All subjects, by the names they have in the tables. Each runs in a process of its own, which loads it alone. */
import { Effect } from "effect"
import type { Options } from "./effectMessageStore.ts"
import type { Database, SubjectDefinition } from "./Subject.ts"

const define = <Module>(
  load: () => Promise<Module>,
  make: (module: Module, database: Database) => ReturnType<SubjectDefinition["make"]>
): SubjectDefinition => ({
  make: (database) => Effect.flatMap(Effect.promise(load), (module) => make(module, database))
})

const defaults: Options = {
  compile: true,
  payload: "json",
  retries: "update",
  keeps: "nothing",
  upserts: "subscription",
  copies: "messages"
}

export const subjects = {
  "effect-message-store": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, defaults)
  ),
  "effect-message-store (interpreted)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, compile: false })
  ),
  "effect-message-store (jsonb)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, payload: "jsonb" })
  ),
  "effect-message-store (by hand)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, retries: "byHand" })
  ),
  "effect-message-store (decide)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, retries: "decide" })
  ),
  "effect-message-store (snapshots)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, keeps: "snapshots" })
  ),
  "effect-message-store (cached)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, keeps: "snapshots and states" })
  ),
  "effect-message-store (projection)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, upserts: "projection" })
  ),
  "effect-message-store (archive)": define(
    () => import("./effectMessageStore.ts"),
    (module, database) => module.make(database, { ...defaults, copies: "archives" })
  ),
  "effect-message-store (no schema)": define(
    () => import("./noSchema.ts"),
    (module, database) => module.make(database)
  ),
  "effect-message-store (tags)": define(() => import("./tagged.ts"), (module, database) => module.make(database)),
  "effect-message-store (1 person)": define(
    () => import("./personal.ts"),
    (module, database) => module.make(database, 1)
  ),
  "effect-message-store (100 persons)": define(
    () => import("./personal.ts"),
    (module, database) => module.make(database, 100)
  ),
  "effect-message-store (100,000 persons)": define(
    () => import("./personal.ts"),
    (module, database) => module.make(database, 100_000)
  ),
  "server only": define(() => import("./serverOnly.ts"), (module, database) => module.make(database)),
  "sql-pg": define(() => import("./sqlPg.ts"), (module, database) => module.make(database)),
  "sql-pg unnest": define(() => import("./sqlPg.ts"), (module, database) => module.makeUnnest(database)),
  "pg COPY": define(() => import("../peers/copy.ts"), (module, database) => module.make(database)),
  pg: define(() => import("../peers/pg.ts"), (module, database) => module.make(database)),
  Emmett: define(() => import("../peers/emmett.ts"), (module, database) => module.make(database)),
  "message-db": define(() => import("../peers/messageDb.ts"), (module, database) => module.make(database)),
  "@dcb-es": define(
    () => import("../peers/dcbEs.ts"),
    (module, database) => module.make(database, { inTurns: false })
  ),
  "@dcb-es (in turns)": define(
    () => import("../peers/dcbEs.ts"),
    (module, database) => module.make(database, { inTurns: true })
  )
} satisfies Record<string, SubjectDefinition>

export type SubjectName = keyof typeof subjects

export const subjectNamed = (name: SubjectName): SubjectDefinition => subjects[name]
