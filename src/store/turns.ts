/**
 * Read, decide, write: again, when somebody else wrote in between.
 *
 * Decisions on the same thing take turns in this process. Each leaves what it knows to the next in turn, which so reads only
 * what others have added: nothing, as a rule.
 */
import { Array as Arr, Effect, Exit, RcMap, Scope, Semaphore } from "effect"

/** What a decision is made on. */
export interface Basis<Known, E> {
  /** Decisions that have one of these in common take turns; in one order, none twice. */
  readonly keys: ReadonlyArray<string>
  /** Reads everything, in one consistent view. */
  readonly read: Effect.Effect<Known, E>
  /** Reads what was added to what is known; again in one view. */
  readonly readOn: (known: Known) => Effect.Effect<Known, E>
  /** Whether nothing was added between the two. */
  readonly isSame: (before: Known, now: Known) => boolean
  /** What is known is left to the next in turn if that has the same; undefined: nothing is left. */
  readonly leaves: unknown
  /** What this process knew last, where nothing was left; others may have added to it. */
  readonly remembered?: (() => Known | undefined) | undefined
  /** Remembers what is known, and gives what is to be left. */
  readonly remember?: ((known: () => Known) => Effect.Effect<() => Known>) | undefined
}

/** What became of an attempt to write. */
export type Attempt<Known, Written, E> =
  | { readonly _tag: "Written"; readonly written: Written; readonly known: () => Known }
  | { readonly _tag: "Conflict"; readonly error: Effect.Effect<never, E> }

/** How a decision is made and written. */
export interface Deciding<Known, Message, Written, E, E2, R2> {
  readonly decide: (known: Known) => Effect.Effect<ReadonlyArray<Message>, E2, R2>
  readonly write: (
    known: Known,
    messages: Arr.NonEmptyReadonlyArray<Message>
  ) => Effect.Effect<Attempt<Known, Written, E>, E>
}

/** The turns of one thing: there as long as somebody has the turn, or waits for it. */
interface Turn {
  readonly semaphore: Semaphore.Semaphore
  /** What the last in turn knew, for the next one; nothing, unless all went well. */
  left: { readonly by: unknown; readonly known: () => unknown } | undefined
}

/** What was decided on; and what was written, if anything was. */
export interface Decided<Known, Written> {
  readonly known: Known
  readonly written: Written | undefined
}

/**
 * Whoever writes is told by the database whether what the decision was made on was still so. A decision that writes nothing,
 * or fails, stands only if it was made on what was read in this turn.
 */
const inTurn = Effect.fnUntraced(function*<Known, Message, Written, E, E2, R2>(
  basis: Basis<Known, E>,
  { decide, write }: Deciding<Known, Message, Written, E, E2, R2>,
  turn: Turn | undefined,
  conflicts: number
): Effect.fn.Return<Decided<Known, Written>, E | E2, R2> {
  const left = turn?.left
  if (turn !== undefined) turn.left = undefined // an interruption or a failure leaves nothing
  const leave = Effect.fnUntraced(function*(known: () => Known) {
    const kept = basis.remember === undefined ? known : yield* basis.remember(known)
    if (turn !== undefined && basis.leaves !== undefined) turn.left = { by: basis.leaves, known: kept }
  })
  const begin = left !== undefined && left.by === basis.leaves
    ? left.known() as Known // left by one that has the same
    : basis.remembered?.()
  let isRead = begin === undefined
  let known = begin ?? (yield* basis.read)
  for (let conflict = 0;;) {
    const decidedOn = known
    const decision = yield* Effect.exit(Effect.suspend(() => decide(decidedOn)))
    const messages = Exit.isSuccess(decision) ? decision.value : []
    if (Arr.isReadonlyArrayNonEmpty(messages)) {
      const attempt = yield* write(decidedOn, messages)
      if (attempt._tag === "Written") {
        yield* leave(attempt.known)
        return { known: decidedOn, written: attempt.written }
      }
      if (++conflict > conflicts) return yield* attempt.error
      known = yield* basis.readOn(decidedOn)
    } else {
      if (!isRead) known = yield* basis.readOn(decidedOn)
      if (basis.isSame(decidedOn, known)) {
        yield* leave(() => decidedOn)
        if (Exit.isFailure(decision)) return yield* Effect.failCause(decision.cause)
        return { known: decidedOn, written: undefined }
      }
    }
    isRead = true
  }
})

/** Decides in turn; in a transaction at once, with one more try. */
export interface Turns {
  <Known, Message, Written, E, E2, R2>(
    basis: Basis<Known, E>,
    deciding: Deciding<Known, Message, Written, E, E2, R2>,
    inTransaction: boolean
  ): Effect.Effect<Decided<Known, Written>, E | E2, R2>
}

/**
 * @internal
 */
export const make: Effect.Effect<Turns, never, Scope.Scope> = Effect.map(
  RcMap.make({
    lookup: (_key: string) => Effect.sync((): Turn => ({ semaphore: Semaphore.makeUnsafe(1), left: undefined }))
  }),
  (turns): Turns => (basis, deciding, inTransaction) => {
    // A transaction would wait for a turn with its locks held.
    if (inTransaction) return inTurn(basis, deciding, undefined, 1)
    return Effect.scopedWith((scope) =>
      Effect.flatMap(
        Effect.forEach(basis.keys, (key) => Scope.provide(RcMap.get(turns, key), scope)),
        (own) =>
          own.reduceRight(
            (decided, { semaphore }) => semaphore.withPermit(decided),
            Effect.suspend(() => inTurn(basis, deciding, own.length === 1 ? own[0] : undefined, Infinity))
          )
      )
    )
  }
)
