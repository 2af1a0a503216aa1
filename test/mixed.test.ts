/**
 * Sequences of everything that is done with a store come to the same in memory and in a database: every outcome, every read,
 * whatever a decision has seen. `MIXED_SEED` sets another seed than the fixed one; a failure tells the shortest sequence that
 * differs, and its seed.
 */
import { describe } from "@effect/vitest"
import { agrees } from "./support/agreeing.ts"
import { databaseLayer } from "./support/database.ts"
import { Sequence } from "./support/mixing.ts"
import { pgliteLayer } from "./support/pglite.ts"

const options = { sequences: Sequence, seed: Number(process.env["MIXED_SEED"] ?? 1), timeout: 300_000 }

describe("a sequence", () => {
  agrees("PostgreSQL", databaseLayer(), { ...options, runs: 2000, stores: 4 })
  agrees("PGlite", pgliteLayer, { ...options, runs: 150, stores: 1 })
})
