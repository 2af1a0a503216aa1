/**
 * The statements that write batches, and the outcomes of their items.
 *
 * A statement whose items are all withdrawn is cancelled, and has ended when their fibers end. When the database refuses
 * a batch, its items are appended one by one, so that only the culprit fails: each in a statement of its own, unless it
 * was withdrawn meanwhile. If the stream of an item is held, the later items of that stream wait behind it.
 */
import { Array as Arr, Effect, Exit, Fiber } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { attribute, attributesOf } from "../../internal/telemetry.ts"
import { wasRefused } from "../../internal/transient.ts"
import type { AppendItem, AppendOutcome } from "../../Storage.ts"
import { sharedSpan } from "../client/sharedSpan.ts"
import type { Entry, Statement } from "./queues.ts"

/** Appends items; one whose stream is held has no outcome. */
export interface Append {
  (items: Arr.NonEmptyReadonlyArray<AppendItem>): Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError>
}

/** Runs an effect in a fiber that ends with the store's layer. */
export interface Run {
  <A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E>
}

type Outcomes = ReadonlyArray<AppendOutcome | undefined>

/** What has become of items. */
export interface Concluded {
  /** Those that have no outcome, because their streams are held. */
  readonly left: ReadonlyArray<Entry>
  /** Gives the others their outcomes: their fibers go on at once. */
  readonly answer: () => void
}

export const nothing: Concluded = { left: [], answer: () => {} }

export const make = (run: Run, append: Append, traced: Traced) => {
  /** Sends items at once; what is returned waits for their outcomes. */
  const send = (given: ReadonlyArray<Entry>): Effect.Effect<Concluded> => {
    const entries = given.filter((entry) => !entry.isWithdrawn)
    if (!Arr.isReadonlyArrayNonEmpty(entries)) return Effect.succeed(nothing)
    const fiber = run(traced(entries, append))
    setOut(entries, fiber)
    return Effect.flatMap(Fiber.await(fiber), (exit) => conclude(entries, exit))
  }

  /** For items whose statement has ended. */
  const conclude = (
    entries: ReadonlyArray<Entry>,
    exit: Exit.Exit<Outcomes, SqlError>
  ): Effect.Effect<Concluded> =>
    Effect.suspend(() => {
      for (const entry of entries) entry.statement = undefined
      if (Exit.isFailure(exit) && entries.length > 1 && wasRefused(exit.cause)) return sendOneByOne(entries)
      const outcomeOf = (i: number) => Exit.isFailure(exit) ? Exit.failCause(exit.cause) : exit.value[i]
      return Effect.succeed({
        left: entries.filter((entry, i) => outcomeOf(i) === undefined && !entry.isWithdrawn),
        answer: () => {
          for (const [i, entry] of entries.entries()) {
            const outcome = outcomeOf(i)
            if (outcome !== undefined) entry.answer(Exit.isExit(outcome) ? outcome : Exit.succeed(outcome))
          }
        }
      })
    })

  const sendOneByOne = Effect.fnUntraced(function*(entries: ReadonlyArray<Entry>) {
    const left: Array<Entry> = []
    const held = new Set<string>()
    for (const entry of entries) {
      const { stream } = entry.item
      if (held.has(stream)) {
        left.push(entry)
        continue
      }
      const { answer, left: busy } = yield* send([entry])
      answer()
      if (busy.length > 0) held.add(stream)
      left.push(...busy)
    }
    return { ...nothing, left: left.filter((entry) => !entry.isWithdrawn) }
  })

  return { send, conclude }
}

/** The items are under way in a statement. */
export const setOut = (entries: ReadonlyArray<Entry>, fiber: Statement["fiber"]): void => {
  const statement: Statement = { fiber, wanted: entries.length }
  for (const entry of entries) entry.statement = statement
}

/** Appends items in the span of their statement. */
export interface Traced {
  (entries: Arr.NonEmptyReadonlyArray<Entry>, append: Append): Effect.Effect<Outcomes, SqlError>
}

export const makeTraced = (store: string): Traced => {
  const name = `append ${store}`
  const attributes = attributesOf(store, "append", "send")
  return (entries, append) =>
    sharedSpan(
      append(Arr.map(entries, (entry) => entry.item)),
      () => ({
        name,
        attributes: {
          ...attributes,
          [attribute.messageCount]: entries.reduce((sum, { item }) => sum + item.messages.length, 0)
        }
      }),
      entries
    )
}
