/** Memory and PostgreSQL agree on which names a pattern matches. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Context, DateTime, Duration, Effect, Layer, Result, Schema } from "effect"
import { checkPattern } from "../src/internal/checks.ts"
import { compilePattern } from "../src/internal/pattern.ts"
import { Storage } from "../src/Storage.ts"
import { backends } from "./support/backends.ts"

// A small alphabet of everything that means something to LIKE, to a regular expression or to SQL.
const Character = Schema.Literals([
  ..."%_\\ab-.*+?()[]{}^$|/'\"#&~,;: \n",
  ..."Aäß日😀é\u200d\uffff"
])
const Text = Arbitrary.map(
  Arbitrary.schema(Schema.Array(Character).check(Schema.isMinLength(1), Schema.isMaxLength(4))),
  (characters) => characters.join("")
)
const Pattern = Arbitrary.filter(Text, (pattern) => Result.isSuccess(checkPattern(pattern)))
/** Turns a name into a pattern that matches it, character by character. */
const disguises: ReadonlyArray<(character: string) => string> = [
  (character) => `\\${character}`,
  (character) => /[%_\\]/.test(character) ? `\\${character}` : character,
  () => "_",
  () => "%",
  () => "%%"
]
const Disguise = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: disguises.length - 1 }))
const Sample = Arbitrary.all([
  Arbitrary.array(Text, { minLength: 1, maxLength: 10 }),
  Pattern,
  Arbitrary.array(Arbitrary.schema(Disguise), { minLength: 4, maxLength: 4 })
])

const disguised = (name: string, choices: ReadonlyArray<number>) =>
  Array.from(name, (character, i) => disguises[choices[i] ?? 0]?.(character)).join("")

const matchesOn = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  prefix: string,
  names: ReadonlyArray<string>,
  pattern: string
) {
  for (const name of new Set(names)) {
    yield* storage.append([{
      stream: prefix + name,
      expectedVersion: undefined,
      metadata: "{}",
      messages: [{ messageId: globalThis.crypto.randomUUID(), occurredAt: DateTime.makeUnsafe(0), data: "1" }]
    }], { atomic: true })
  }
  const { messages: rows } = yield* storage.readPattern({
    pattern: prefix + pattern,
    fromPosition: 0,
    toPosition: Number.MAX_SAFE_INTEGER,
    direction: "forward",
    limit: 1000
  })
  return rows.map(({ stream }) => stream.slice(prefix.length))
})

const stores = Effect.forEach(
  backends,
  ({ layer }) => Effect.map(Layer.build(Layer.fresh(layer("wildcards"))), (built) => Context.get(built, Storage))
)

describe("wildcards", () => {
  it.live("memory, PGlite and PostgreSQL agree on generated patterns and names", () =>
    Effect.gen(function*() {
      const opened = yield* stores
      let matched = 0
      let run = 0
      const samples = yield* Arbitrary.sampleEffect(Sample, { count: 150 })
      for (const [names, random, choices] of samples) {
        const [name = ""] = names
        for (const pattern of [random, disguised(name, choices)]) {
          const prefix = `${++run}:`
          const results = yield* Effect.forEach(opened, (storage) => matchesOn(storage, prefix, names, pattern))
          for (const result of results) assert.deepStrictEqual(result, results[0], `${pattern} on ${names.join(" ")}`)
          if (pattern !== random) assert.include(results[0] ?? [], name)
          matched += results[0]?.length ?? 0
        }
      }
      assert.isAbove(matched, samples.length)
    }))

  // A regular expression tries each `a` at all places behind the one before: half a minute for this name, years for a longer one.
  it.live("memory, PGlite and PostgreSQL match a pattern of many parts in no time", () =>
    Effect.gen(function*() {
      const name = "a".repeat(100)
      for (const storage of yield* stores) {
        const [elapsed, matched] = yield* Effect.timed(matchesOn(storage, "parts:", [name], `${"%a".repeat(6)}%b`))
        assert.deepStrictEqual(matched, [])
        assert.isBelow(Duration.toMillis(elapsed), 10_000)
        assert.deepStrictEqual(yield* matchesOn(storage, "parts:", [], `${"%a".repeat(100)}%`), [name])
        assert.deepStrictEqual(yield* matchesOn(storage, "parts:", [], `${"%a".repeat(101)}%`), [])
      }
    }))

  it("memory compiles and matches a pattern of 100,000 backslashes", () => {
    const matches = compilePattern("\\\\".repeat(50_000))
    assert.isTrue(matches("\\".repeat(50_000)))
    assert.isFalse(matches("\\".repeat(49_999)))
  })
})
