/**
 * Sequences in which messages are deleted and redacted, among everything else that is done with a store, come to the same
 * everywhere: in memory what they come to in a store that remembers nothing, and in a database what they come to in memory.
 *
 * `FORGETTING_SEED` sets another seed than the fixed one, `FORGETTING_RUNS` how many sequences run, in memory and on PostgreSQL; a
 * failure tells the shortest sequence that differs, and its seed.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { agrees, assertSame, openedInMemory } from "./support/agreeing.ts"
import { databaseLayer } from "./support/database.ts"
import { ForgettingSequence, material, perform } from "./support/mixing.ts"
import { makeNaive } from "./support/naiveStore.ts"
import { pgliteLayer } from "./support/pglite.ts"

const seed = Number(process.env["FORGETTING_SEED"] ?? 1)
const runs = process.env["FORGETTING_RUNS"]

/** Without what errors say to people. */
const withoutReasons = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(withoutReasons)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(
      Object.entries(value).flatMap(([key, one]) => key === "reason" ? [] : [[key, withoutReasons(one)]])
    )
    : value

const options = { sequences: ForgettingSequence, seed, timeout: 1_200_000 }

const inMemoryRuns = Number(runs ?? 1000)

describe("a sequence with deletions and redactions", () => {
  it.live.prop(
    `in memory comes to what it comes to in a store that remembers nothing: on ${inMemoryRuns} sequences, from seed ${seed} on`,
    [ForgettingSequence],
    ([sequence]) =>
      Effect.gen(function*() {
        const given = material()
        const naive = makeNaive()
        const expected = yield* perform(naive.store, sequence, given, naive.truncate)
        const inMemory = yield* perform(yield* openedInMemory, sequence, given)
        assertSame(withoutReasons(inMemory), withoutReasons(expected), "in a naive store")
      }).pipe(Effect.scoped),
    { arbitrary: { runs: inMemoryRuns, seed, maxShrinks: 400 }, timeout: options.timeout }
  )

  agrees("PostgreSQL", databaseLayer(), { ...options, runs: Number(runs ?? 150), stores: 4 })
  agrees("PGlite", pgliteLayer, { ...options, runs: 30, stores: 1 })
})
