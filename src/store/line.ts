/**
 * Decisions that have been made and are not written yet, in the order in which they were made.
 *
 * While one batch is being written the next ones gather behind it, and leave when it has succeeded; where nothing is being
 * written, a decision leaves at once. Those who have their answers often decide again at once: of many the one half is written
 * while the other one decides. If a batch is refused, what was decided in it and behind it is void, and decided again:
 *
 * - on a conflict, on what others have added;
 * - for a reason that may be one decision's own (a duplicate, a message that the database refuses), in smaller batches, until
 *   the culprit is alone, and fails.
 *
 * A decision that writes nothing is in a batch too: that says whether what it was made on is so.
 */
import { Cause, Effect, Exit, Fiber } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { wasRefused } from "../internal/transient.ts"
import type { ReadError } from "../Reader.ts"
import type { AppendOutcome, Storage } from "../Storage.ts"
import { Batch, type Decided, maximumMembers, type Member, send, type Sent, sourcesOf } from "./batch.ts"
import { isConflict, refusalOf } from "./conditional.ts"
import type { Part } from "./evolving.ts"
import { type ReadSources, streamKey, tagKey } from "./sources.ts"
import type { Turns } from "./turns.ts"

export interface Line<A> {
  /** The first one is being written, if any is. */
  readonly batches: Array<Batch<A>>
  /** Whether a batch is being written. */
  isAway: boolean
  /** How many decisions may leave together. */
  most: number
  /** Not given yet: whoever has one goes on at once, and may decide again. */
  readonly answers: Array<() => void>
  /** How many decisions have to be there for a batch to leave; while answers are given, more than that: others are made. */
  worth: number
  /** Who waits until nothing is being written. */
  readonly waiting: Set<() => void>
}

/** Runs an effect in a fiber that ends with the store's layer. */
export interface Run {
  <B, E>(effect: Effect.Effect<B, E>): Fiber.Fiber<B, E>
}

type Answers = ReadonlyArray<() => void>

export const make = <A>(): Line<A> => ({
  batches: [],
  isAway: false,
  most: maximumMembers,
  answers: [],
  worth: 0,
  waiting: new Set()
})

/** Fewer decisions cost both sides less together with those behind them. */
const worthABatch = 16

const countOf = <A>({ batches }: Line<A>): number => batches.reduce((sum, { members }) => sum + members.length, 0)

/** Whether something that is not written yet goes to one of these streams and tags. */
export const isWriting = <A>({ batches }: Line<A>, keys: ReadonlyArray<string>): boolean =>
  batches.some((batch) => keys.some((key) => batch.isWriting(key)))

/** Waits until everything is written. Meanwhile nobody else begins to decide. */
export const idle = <A>(line: Line<A>): Effect.Effect<void> =>
  Effect.suspend(() =>
    line.batches.length === 0
      ? Effect.void
      : Effect.callback<void>((resume) => {
        const wake = () => resume(Effect.void)
        line.waiting.add(wake)
        return Effect.sync(() => line.waiting.delete(wake))
      })
  )

/**
 * @internal
 */
export const makeJoin = <A>(
  storage: Storage["Service"],
  store: string,
  read: ReadSources<A>,
  turns: Turns<A, Line<A>>,
  run: Run
) => {
  /** The decision gathers, and the next one has its turn. */
  const join = (line: Line<A>, member: Member<A>): void => {
    const written = keysOf(member.parts)
    evolve(line, member, written)
    const last = line.batches.at(-1)
    if (last === undefined || last.fiber !== undefined || !last.add(member, written, line.most)) {
      const batch = new Batch<A>()
      batch.add(member, written, line.most)
      line.batches.push(batch)
    }
    turns.pass(member.turn)
    leave(line)
  }

  const evolve = (line: Line<A>, member: Member<A>, written: ReadonlyArray<string>): void => {
    const isHere = (key: string) => turns.place(key)?.line === line
    for (const key of written) {
      if (!isHere(key)) continue
      for (const source of turns.place(key)?.sources ?? []) {
        if (member.evolved.includes(source)) continue
        // Elsewhere others evolve it, in an order of their own; and what was not read is not seen by what comes behind it.
        if (!source.isStale && !source.isUnwanted && source.named.keys.every(isHere)) member.evolved.push(source)
        else turns.forget(source)
      }
    }
    for (const source of member.evolved) for (const part of member.parts) member.undo.push(...source.evolve(part))
    for (const source of [...member.sources, ...member.evolved]) {
      if (source.named.kept !== undefined) member.marks.push([source, source.mark()])
    }
  }

  const leave = (line: Line<A>): void => {
    if (line.isAway || countOf(line) < line.worth) return
    const [batch] = line.batches
    if (batch === undefined) {
      const waiting = Array.from(line.waiting)
      line.waiting.clear()
      for (const wake of waiting) wake()
      return
    }
    line.isAway = true
    // What a fold throws is the failure of those who decide on it.
    const fiber = run(Effect.suspend(() => send(storage, store, read, batch.members)))
    batch.fiber = fiber
    fiber.addObserver((exit) => {
      line.isAway = false
      line.answers.push(...conclude(line, batch, exit))
      const isAnswering = line.worth > 0
      // The other half, who have their answers now, decide meanwhile.
      line.worth = Math.max(worthABatch, Math.ceil((line.answers.length + countOf(line)) / 2))
      leave(line)
      if (!isAnswering) giveAnswers(line)
    })
  }

  const giveAnswers = (line: Line<A>): void => {
    const answers = line.answers.splice(0)
    for (const each of answers) each()
    const next = () => {
      if (line.answers.length > 0) return giveAnswers(line)
      line.worth = 0
      leave(line)
    }
    // Fibers that have their answers, and are about to decide again, join the next batch.
    if (answers.length > 1) run(Effect.yieldNow).addObserver(next)
    else next()
  }

  /** Returns the answers, to be given when all is in order: whoever has one goes on at once. */
  const conclude = (line: Line<A>, { members }: Batch<A>, exit: Exit.Exit<Sent, SqlError | ReadError>): Answers => {
    const sent = Exit.isSuccess(exit) ? exit.value : undefined
    const appended = sent !== undefined && "outcomes" in sent ? sent : undefined
    const looked = sent !== undefined && "isUnchanged" in sent ? sent : undefined
    const refusal = appended && refusalOf(appended.outcomes)
    if (looked?.isUnchanged === true || (appended !== undefined && refusal === undefined)) {
      line.batches.shift()
      line.most = Math.min(2 * line.most, maximumMembers)
      return written(members, appended?.outcomes.slice(appended.append.required) ?? [])
    }
    const all = takeBack(line)
    if (looked !== undefined || isConflict(refusal)) {
      for (const source of sourcesOf(all)) source.outdate()
      if (looked?.now !== undefined) { for (const source of sourcesOf(members)) source.readOn(looked.now) }
      for (const { turn } of all) for (const place of turn.places) if (place.line === line) place.line = undefined
      return again(all)
    }
    if (members.length > 1 && (Exit.isSuccess(exit) || wasRefused(exit.cause))) {
      line.most = Math.ceil(members.length / 2)
      return again(all)
    }
    // Whether something was stored may be unknown.
    for (const source of sourcesOf(members)) turns.forget(source)
    if (Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)) return again(all)
    return [
      ...members.map(({ answer, refuse }) => () =>
        Exit.isFailure(exit)
          ? answer(Effect.failCause(exit.cause))
          : appended && refuse(appended.append, appended.outcomes)
      ),
      ...again(all.slice(members.length))
    ]
  }

  const written = (members: ReadonlyArray<Member<A>>, outcomes: ReadonlyArray<AppendOutcome>): Answers => {
    let i = 0
    const decided = members.map(({ evolved, parts, sources }): Decided => {
      const positions = parts.flatMap((part) => {
        const outcome = outcomes[i++]
        if (outcome?._tag !== "Written") return []
        const { globalPosition, version } = outcome
        const position = { stream: part.item.stream, version, globalPosition }
        for (const source of evolved) source.written(part, position)
        return [position]
      })
      return { known: sources.map((source) => source.end), positions }
    })
    // Of each source the last mark.
    for (const remember of new Map(members.flatMap(({ marks }) => marks)).values()) remember()
    return members.map(({ answer }, m) => () => answer(Effect.succeed(decided[m])))
  }

  /** All decisions of a line are void; what evolved by them is as it was before. */
  const takeBack = (line: Line<A>): ReadonlyArray<Member<A>> =>
    undone(line.batches.splice(0).flatMap((batch) => batch.members))

  const undone = (members: ReadonlyArray<Member<A>>): ReadonlyArray<Member<A>> => {
    for (const { undo } of members.toReversed()) for (const back of undo.toReversed()) back()
    return members
  }

  const again = (members: ReadonlyArray<Member<A>>): Answers =>
    members.flatMap(({ answer, isWithdrawn, turn }) => {
      if (isWithdrawn) return []
      turns.wait(turn)
      return [() => answer(Effect.succeed(undefined))]
    })

  /**
   * The fiber of a decision was interrupted. Unless it is under way it is taken out, and what was decided behind it is decided
   * again; a statement that no other fiber waits for is cancelled.
   */
  const withdraw = (line: Line<A>, member: Member<A>): Effect.Effect<void> => {
    const index = line.batches.findIndex(({ members }) => members.includes(member))
    const batch = line.batches[index]
    if (batch === undefined) return Effect.void
    member.isWithdrawn = true
    if (batch.fiber !== undefined) {
      return batch.members.every(({ isWithdrawn, parts }) => isWithdrawn || parts.length === 0)
        ? Fiber.interrupt(batch.fiber)
        : Effect.void
    }
    const from = batch.members.indexOf(member)
    const isDecidedOn = member.undo.length > 0
    const behind = isDecidedOn
      ? [...batch.members.splice(from), ...line.batches.splice(index + 1).flatMap(({ members }) => members)]
      : batch.members.splice(from, 1)
    if (batch.members.length === 0) line.batches.splice(index, 1)
    for (const answer of again(undone(behind))) answer()
    leave(line)
    return Effect.void
  }

  return { join, withdraw }
}

/** The streams and the tags that are written. */
const keysOf = <A>(parts: ReadonlyArray<Part<A>>): ReadonlyArray<string> =>
  parts.flatMap(({ item: { messages, stream } }) => [
    streamKey(stream),
    ...messages.flatMap(({ tagged }) => tagged?.tags.map(tagKey) ?? [])
  ])
