/**
 * Decides alone: in the transaction that is open, whose locks others would wait for, once more on a conflict; and within another
 * decision, which keeps others waiting, until it succeeds.
 */
import { Array as Arr, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { ReadError } from "../Reader.ts"
import type { Storage } from "../Storage.ts"
import type { Decided } from "./batch.ts"
import { conditional, isConflict, positionsOf, refusalOf } from "./conditional.ts"
import { Evolving, type Part } from "./evolving.ts"
import type { ReadSources, Sourced, View } from "./sources.ts"
import type { Deciding } from "./together.ts"

/**
 * @internal
 */
export const decideAlone = Effect.fnUntraced(function*<A, E, E2, R>(
  storage: Storage["Service"],
  read: ReadSources<A>,
  sources: ReadonlyArray<Sourced<A>>,
  { decide, refused }: Deciding<A, E, E2, R>,
  inTransaction: boolean
): Effect.fn.Return<Decided, E | E2 | ReadError | SqlError, R> {
  // What is remembered may be behind, and nothing would say so to a decision that writes nothing.
  let known = yield* read(sources, [], true)
  for (let isAgain = false;; isAgain = true) {
    const parts = yield* decide(known)
    const items = parts.map(({ item }) => item)
    if (!Arr.isReadonlyArrayNonEmpty(items)) {
      yield* rememberLater(storage, sources, known, [], [])
      return { known, positions: [] }
    }
    const append = conditional(Arr.zip(sources, known), items)
    const outcomes = yield* storage.append(append.items, { atomic: true })
    const refusal = refusalOf(outcomes)
    if (refusal === undefined) {
      const positions = positionsOf(append, outcomes)
      yield* rememberLater(storage, sources, known, parts, positions)
      return { known, positions }
    }
    if ((isAgain && inTransaction) || !isConflict(refusal)) return yield* refused(append, outcomes)
    known = yield* read(sources, known, true)
  }
})

/**
 * Remembers what streams come to, once the transaction is committed: at a version a stream is the same for everybody. At
 * REPEATABLE READ it may see its own messages of a tag, and not those of others below them: of tags nothing is kept.
 */
const rememberLater = <A>(
  storage: Storage["Service"],
  sources: ReadonlyArray<Sourced<A>>,
  known: View,
  parts: ReadonlyArray<Part<A>>,
  positions: Decided["positions"]
): Effect.Effect<void> => {
  const kept = Arr.zip(sources, known).flatMap(([source, one]) =>
    source.kept === undefined || "queries" in source ? [] : [new Evolving(source, one)]
  )
  for (const source of kept) {
    for (const [i, part] of parts.entries()) {
      source.evolve(part)
      const position = positions[i]
      if (position !== undefined) source.written(part, position)
    }
  }
  return kept.length === 0
    ? Effect.void
    : storage.afterCommit(Effect.sync(() => kept.forEach((source) => source.mark()())))
}
