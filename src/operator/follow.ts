/** Messages as they are written, for whoever looks on. */
import { Clock, Effect, Option, Stream } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkPattern, checkPollInterval, checkWhole } from "../internal/checks.ts"
import { compilePattern } from "../internal/pattern.ts"
import type { EncodedStoredMessage, Storage } from "../Storage.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"

/** Which messages are followed. */
export interface FollowOptions {
  /** A LIKE pattern of names of streams. Default: all. */
  readonly pattern?: string | undefined
  /** Those behind this global position. Default: those that are written from now on. */
  readonly after?: number | undefined
  /** How long it waits for a wake-up before it looks all the same; a millisecond or more. Default 1 second. */
  readonly pollInterval?: Duration.Input | undefined
}

const pageSize = 500

/** How long a position that was passed over is looked at again, in milliseconds, and how many of them are, at most. */
const lateFor = 30_000
const mostLate = 1000

/** Positions without a message: it may be committed late, or never. Each until when it is looked at. */
type Missing = Map<number, number>

/** Runs of positions that follow each other. */
const runsOf = (missing: Missing): ReadonlyArray<readonly [from: number, to: number]> => {
  const runs: Array<[number, number]> = []
  for (const position of Array.from(missing.keys()).toSorted((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last !== undefined && last[1] === position - 1) last[1] = position
    else runs.push([position, position])
  }
  return runs.slice(0, 50)
}

interface State {
  readonly last: number
  readonly missing: Missing
}

export const make = (
  storage: Storage["Service"],
  typeOf: TypeOf,
  bounded: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
) =>
({ after, pattern = "%", pollInterval = "1 second" }: FollowOptions = {}): Stream.Stream<
  Message,
  InvalidArgumentError | SqlError
> => {
  const between = (fromPosition: number, toPosition: number) =>
    storage.readPattern({ pattern: "%", fromPosition, toPosition, direction: "forward", limit: pageSize })

  /** What is new, and what was committed late. */
  const look = ({ last, missing }: State) =>
    Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      const { messages } = yield* between(last + 1, Number.MAX_SAFE_INTEGER)
      const late: Array<EncodedStoredMessage> = []
      for (const [from, to] of runsOf(missing)) late.push(...(yield* between(from, to)).messages)
      for (const { globalPosition } of late) missing.delete(globalPosition)
      let reached = last
      for (const { globalPosition } of messages) {
        for (let at = Math.max(reached + 1, globalPosition - mostLate); at < globalPosition; at++) {
          missing.set(at, now + lateFor)
        }
        reached = globalPosition
      }
      for (const [position, until] of missing) if (until <= now || missing.size > mostLate) missing.delete(position)
      return { found: [...late, ...messages], state: { last: reached, missing }, isFull: messages.length === pageSize }
    })

  return Stream.unwrap(Effect.gen(function*() {
    const matches = compilePattern(yield* Effect.fromResult(checkPattern(pattern)))
    const interval = yield* Effect.fromResult(checkPollInterval(pollInterval))
    const given = after === undefined ? undefined : yield* Effect.fromResult(checkWhole("after", after, 0))
    const listener = yield* storage.listen
    const last = given ?? (yield* bounded(storage.operator.vitals(0))).lastPosition
    const first: State & { readonly waits: boolean } = { last, missing: new Map(), waits: false }
    return Stream.paginate(first, ({ waits, ...state }) =>
      Effect.gen(function*() {
        if (waits) yield* listener.wait(interval)
        const { found, isFull, state: next } = yield* bounded(look(state))
        const messages = found.filter(({ stream }) => matches(stream)).map(toMessage(typeOf))
        return [messages, Option.some({ ...next, waits: !isFull })] as const
      }))
  }))
}
