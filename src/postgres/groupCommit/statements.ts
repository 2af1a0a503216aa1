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

export const make = (run: Run, append: Append, traced: Traced) => {
  /** Sends items, and answers them. Returns those that have no answer, because their streams are held. */
  const send = (given: ReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<Entry>> =>
    Effect.suspend(() => {
      const entries = given.filter((entry) => !entry.isWithdrawn)
      if (!Arr.isReadonlyArrayNonEmpty(entries)) return Effect.succeed([])
      const fiber = run(traced(entries, append))
      setOut(entries, fiber)
      return Effect.flatMap(Fiber.await(fiber), (exit) => conclude(entries, exit))
    })

  /** The same, for items whose statement has ended. */
  const conclude = (
    entries: ReadonlyArray<Entry>,
    exit: Exit.Exit<Outcomes, SqlError>
  ): Effect.Effect<ReadonlyArray<Entry>> =>
    Effect.suspend(() => {
      for (const entry of entries) entry.statement = undefined
      if (Exit.isFailure(exit) && entries.length > 1 && wasRefused(exit.cause)) return sendOneByOne(entries)
      return Effect.succeed(entries.filter((entry, i) => {
        const outcome = Exit.isFailure(exit) ? Exit.failCause(exit.cause) : exit.value[i]
        if (outcome === undefined) return !entry.isWithdrawn
        entry.answer(Exit.isExit(outcome) ? outcome : Exit.succeed(outcome))
        return false
      }))
    })

  const sendOneByOne = Effect.fnUntraced(function*(entries: ReadonlyArray<Entry>) {
    const left: Array<Entry> = []
    const held = new Set<string>()
    for (const entry of entries) {
      const { stream } = entry.item
      const busy = held.has(stream) ? [entry] : yield* send([entry])
      if (busy.length > 0) held.add(stream)
      left.push(...busy)
    }
    return left.filter((entry) => !entry.isWithdrawn)
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
