/**
 * Decisions of this process are made together: in turn, each on what the one before it comes to, and they leave in batches.
 *
 * On its turn a decision is made in its own fiber. What it reads is what is known of its sources: behind decisions that are not
 * written yet, if there are any, else as it was read or written last, else as it is read now. Whoever writes is told by the
 * database whether that was so. A decision that writes nothing, or fails, stands if all it was made on was read in its turn, in
 * one view; else its batch says whether it does.
 */
import { type Context, Effect, Exit, FiberSet, type Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { invalid } from "../internal/checks.ts"
import type { Freshness } from "../personal/freshness.ts"
import type { ReadError } from "../Reader.ts"
import type { AppendOutcome, Storage } from "../Storage.ts"
import { decideAlone } from "./alone.ts"
import type { Decided, Member } from "./batch.ts"
import type { Conditional } from "./conditional.ts"
import { Evolving, type Part } from "./evolving.ts"
import * as Line from "./line.ts"
import { isSame, type KnownSource, type ReadSources, type Sourced, type View } from "./sources.ts"
import { isFirst, type Place, type Turn, Turns, Within } from "./turns.ts"

/** How a decision is made, and what its refusal is called. */
export interface Deciding<A, E, E2, R> {
  /** Decides, and encodes what is to be written; nothing: none. */
  readonly decide: (view: View) => Effect.Effect<ReadonlyArray<Part<A>>, E2, R>
  readonly refused: (append: Conditional, outcomes: ReadonlyArray<AppendOutcome>) => Effect.Effect<never, E>
}

/** Decides together with others in this process; within a transaction, or another decision, alone. */
export interface DecideOn<A> {
  <E, E2, R>(
    sources: ReadonlyArray<Sourced<A>>,
    deciding: Deciding<A, E, E2, R>
  ): Effect.Effect<Decided, E | E2 | ReadError | InvalidArgumentError | SqlError, R>
}

/**
 * @internal
 */
export const make = Effect.fnUntraced(function*<A>(
  storage: Storage["Service"],
  name: string,
  read: ReadSources<A>,
  freshness: Freshness | undefined
): Effect.fn.Return<DecideOn<A>, never, Scope.Scope> {
  let isClosed = false
  // Finalizers run from the last to the first: nothing is decided any more, then batches end, and what is in them is void.
  const fibers = yield* FiberSet.make()
  const turns = new Turns<A, Line.Line<A>>()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isClosed = true
      turns.end()
    })
  )
  const run = yield* FiberSet.runtime(fibers)()
  const { join, withdraw } = Line.makeJoin(storage, name, read, turns, run)

  const find = (named: Sourced<A>): Evolving<A> | undefined => {
    for (const source of turns.place(named.keys[0] ?? "")?.sources ?? []) {
      if (!isSame(source.named, named)) continue
      if (source.stamp === undefined || freshness?.isFresh(source.stamp) !== false) return source
      turns.forget(source) // it is not to be kept any more
    }
    return undefined
  }

  const isKnown = (source: Evolving<A> | undefined): source is Evolving<A> => source?.isStale === false

  const add = (named: Sourced<A>, known: KnownSource): void => {
    const source = new Evolving(named, known, freshness?.stamp)
    for (const key of named.keys) turns.place(key)?.sources.add(source)
  }

  /** Reads sources, or what was added to them; they are known then, if that may still be said. */
  const readOn = (sources: ReadonlyArray<Sourced<A>>, mayBeKnown: () => boolean, asking: "one" | "many" = "one") => {
    const before = sources.map(find)
    return Effect.map(read(sources, before.map((source) => source?.known), false, asking), (view) => {
      if (!mayBeKnown()) return
      for (const [i, named] of sources.entries()) {
        const known = view[i] as KnownSource // as many as sources
        const source = find(named)
        if (source !== undefined) {
          source.readOn(known)
          continue
        }
        add(named, known)
      }
    })
  }

  const placesOf = (named: Sourced<A>) => named.keys.flatMap((key) => turns.place(key) ?? [])

  /** While it waits for other turns: what it alone decides on. */
  const readAhead = (
    turn: Turn<A, Line.Line<A>>,
    sources: ReadonlyArray<Sourced<A>>
  ): Effect.Effect<void, ReadError> => {
    const isFree = (place: Place<A, Line.Line<A>>) =>
      (place.holder === turn || isFirst(turn, place)) && (place.line === undefined || place.line.batches.length === 0)
    const own = sources.filter((named) => placesOf(named).every(isFree) && !isKnown(find(named)))
    return own.length === 0
      ? Effect.void
      : readOn(own, () => own.every((named) => placesOf(named).every(isFree)), "many")
  }

  /** The lines of what is not written yet at its places. */
  const activeLines = ({ places }: Turn<A, Line.Line<A>>) =>
    new Set(places.flatMap(({ line }) => line !== undefined && line.batches.length > 0 ? [line] : []))

  /** Where it gathers: with others that have a place in common, unless it has to wait for them. */
  const openLine = (turn: Turn<A, Line.Line<A>>): Line.Line<A> | undefined => {
    const active = activeLines(turn)
    const [line = turn.places.find((place) => place.line !== undefined)?.line ?? Line.make<A>()] = active
    const others = turn.places.filter((place) => place.line !== line)
    const isOpen = active.size === 0 ||
      (active.size === 1 && line.waiting.size === 0 && !Line.isWriting(line, others.map(({ key }) => key)))
    if (!isOpen) return undefined
    for (const place of others) place.line = line
    return line
  }

  /** The same, once those that it cannot gather with are written. */
  const lineOf = Effect.fnUntraced(function*(turn: Turn<A, Line.Line<A>>) {
    while (true) {
      const line = openLine(turn)
      if (line !== undefined) return line
      const active = Array.from(activeLines(turn))
      for (const { key, line: own, sources } of turn.places) {
        // They do not evolve by what is written elsewhere.
        if (!active.some((each) => each !== own && Line.isWriting(each, [key]))) continue
        for (const source of sources) turns.forget(source)
      }
      for (const each of active) yield* Line.idle(each)
      for (const place of turn.places) if (place.line?.batches.length === 0) place.line = undefined
    }
  })

  /** A stream alone that this process remembers is not read. */
  const rememberedOf = (
    [named, ...others]: ReadonlyArray<Sourced<A>>
  ): readonly [Sourced<A>, KnownSource] | undefined => {
    if (named === undefined || "queries" in named || others.length > 0 || find(named) !== undefined) return undefined
    const known = named.kept?.remembered()
    return known && [named, known]
  }

  /** What a decision is made on, if all of it is known. */
  const prepared = (turn: Turn<A, Line.Line<A>>, sources: ReadonlyArray<Sourced<A>>, isRead = false) => {
    const line = openLine(turn)
    const known = sources.map(find)
    return line !== undefined && known.every(isKnown) ? { line, isRead, known } : undefined
  }

  /** What a decision is made on, in its turn. */
  const prepare = Effect.fnUntraced(function*(turn: Turn<A, Line.Line<A>>, sources: ReadonlyArray<Sourced<A>>) {
    for (let isRead = false;;) {
      const line = yield* lineOf(turn)
      const known = prepared(turn, sources, isRead)
      if (known !== undefined) return known
      const missing = sources.filter((named) => !isKnown(find(named)))
      const keys = missing.flatMap((named) => named.keys)
      if (Line.isWriting(line, keys)) {
        yield* Line.idle(line)
        continue
      }
      const remembered = rememberedOf(sources)
      if (remembered !== undefined) {
        add(...remembered)
        continue
      }
      let wasRead = true
      yield* readOn(
        missing,
        () => wasRead = turn.places.every((place) => place.line === line) && !Line.isWriting(line, keys)
      )
      isRead = wasRead && missing.length === sources.length
    }
  })

  // A generator function has a hidden class of its own, in old memory: made for each decision, it would keep what it closes over
  // alive until that is swept.
  const inTurn = Effect.fnUntraced(function*<E, E2, R>(
    turn: Turn<A, Line.Line<A>>,
    sources: ReadonlyArray<Sourced<A>>,
    { decide, refused }: Deciding<A, E, E2, R>,
    context: Context.Context<never>
  ): Effect.fn.Return<Decided, E | E2 | ReadError | SqlError, R> {
    while (true) {
      if (isClosed) return yield* Effect.interrupt
      if (turn.state !== "deciding") {
        yield* readAhead(turn, sources)
        if (!isClosed) yield* turns.hasTurn(turn)
        continue
      }
      const { isRead, known, line } = prepared(turn, sources) ?? (yield* prepare(turn, sources))
      const revisions = known.map(({ revision }) => revision)
      /** What it is made on has changed, or somebody who came earlier decides again. */
      const isVoid = () =>
        turn.places.some(({ line: now, waiting: [first] }) =>
          now !== line || (first !== undefined && first.ticket < turn.ticket)
        ) || known.some(({ revision }, i) => revision !== revisions[i])
      const decision = isVoid()
        ? undefined
        : yield* Effect.exit(Effect.provideService(
          Effect.suspend(() => decide(known.map((source) => source.known))),
          Within,
          [turn]
        ))
      if (isClosed) return yield* Effect.interrupt
      if (decision === undefined || isVoid()) {
        turns.wait(turn)
        continue
      }
      const parts = Exit.isSuccess(decision) ? decision.value : []
      if (parts.length > 0 || !isRead) {
        const decided = yield* Effect.callback<Decided | undefined, E | SqlError | ReadError>((answer) => {
          const member: Member<A> = {
            turn,
            sources: known,
            parts,
            context,
            answer,
            refuse: (append, outcomes) => answer(refused(append, outcomes)),
            evolved: [],
            undo: [],
            marks: [],
            isWithdrawn: false
          }
          join(line, member)
          return Effect.suspend(() => withdraw(line, member))
        })
        if (decided === undefined) continue
        if (Exit.isSuccess(decision)) return decided
      }
      if (parts.length === 0 && isRead) { for (const source of known) source.mark()() }
      if (Exit.isFailure(decision)) return yield* Effect.failCause(decision.cause)
      return { known: known.map((source) => source.known), positions: [] }
    }
  })

  const together = <E, E2, R>(
    sources: ReadonlyArray<Sourced<A>>,
    deciding: Deciding<A, E, E2, R>,
    context: Context.Context<never>
  ): Effect.Effect<Decided, E | E2 | ReadError | SqlError, R> =>
    Effect.uninterruptibleMask((restore) => {
      const turn = turns.enter(Array.from(new Set(sources.flatMap(({ keys }) => keys))))
      return Effect.onExit(
        restore(inTurn(turn, sources, deciding, context)),
        () => Effect.sync(() => turns.leave(turn))
      )
    })

  return (sources, deciding) =>
    Effect.withFiber((fiber) => {
      const within = fiber.getRef(Within).filter(({ state }) => state === "deciding")
      const again = within.length === 0 ?
        undefined :
        sources.find((named) => placesOf(named).some((place) => within.some(({ places }) => places.includes(place))))
      if (again !== undefined) {
        return Effect.fromResult(invalid(
          `source "${again.name}"`,
          "is decided on already by the decision within which this one is made: decide on everything at once"
        ))
      }
      return Effect.flatMap(storage.inTransaction, (inTransaction) =>
        inTransaction || within.length > 0
          ? decideAlone(storage, read, sources, deciding, inTransaction)
          : together(sources, deciding, fiber.context))
    })
})
