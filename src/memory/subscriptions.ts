/** The state of a subscription, in memory: checkpoints and parked messages roll back with the transaction. */
import { Clock, DateTime, Effect, Option } from "effect"
import { StreamRebuiltError } from "../errors.ts"
import type {
  Advance,
  AggregatedStorage,
  Claim,
  EncodedParkedMessage,
  EncodedStoredMessage,
  Halt,
  ParkedEntry,
  PartitionHead,
  Pause,
  SubscriptionStorage
} from "../Storage.ts"
import * as Transaction from "./transaction.ts"

type Change =
  | { readonly _tag: "Advance"; readonly partition: number; readonly position: number }
  | { readonly _tag: "Park"; readonly entry: ParkedEntry; readonly parkedAt: DateTime.Utc }
  | { readonly _tag: "Unpark"; readonly partition: number; readonly position: number }
  | { readonly _tag: "Halt"; readonly partition: number; readonly halt: Halt }
  | { readonly _tag: "Pause"; readonly partition: number | undefined; readonly pause: Pause }
  | { readonly _tag: "Resume"; readonly partition: number | undefined }
  | { readonly _tag: "Begin"; readonly starts: ReadonlyArray<PartitionHead>; readonly numbering: number }
  | { readonly _tag: "Reset" }

type Parked = ParkedEntry & { readonly parkedAt: DateTime.Utc }

const placeOf = ({ partition, position }: PartitionHead): string => `${partition} ${position}`

const checkpointOf = (partition: number): string => `checkpoint ${partition}`

/** The state after some changes. */
class State {
  readonly checkpoints: Map<number, number>
  readonly parked: Map<string, Parked>
  readonly halted: Map<number, Halt>
  /** Undefined: the subscription. */
  readonly paused: Map<number | undefined, Pause>
  /** Of the stream, when this began. */
  numbering: number | undefined

  constructor(other?: State) {
    this.checkpoints = new Map(other?.checkpoints)
    this.parked = new Map(other?.parked)
    this.halted = new Map(other?.halted)
    this.paused = new Map(other?.paused)
    this.numbering = other?.numbering
  }

  pauseOf(partition: number): Pause | undefined {
    return this.paused.get(undefined) ?? this.paused.get(partition)
  }

  apply(changes: ReadonlyArray<Change>): void {
    for (const change of changes) {
      switch (change._tag) {
        case "Advance":
          this.checkpoints.set(change.partition, change.position)
          break
        case "Park":
          this.parked.set(placeOf(change.entry), { ...change.entry, parkedAt: change.parkedAt })
          break
        case "Unpark":
          this.parked.delete(placeOf(change))
          break
        case "Halt":
          this.halted.set(change.partition, change.halt)
          break
        case "Pause":
          this.paused.set(change.partition, change.pause)
          break
        case "Resume":
          this.paused.delete(change.partition)
          break
        case "Begin":
          for (const { partition, position } of change.starts) this.checkpoints.set(partition, position)
          this.numbering = change.numbering
          break
        case "Reset":
          this.checkpoints.clear()
          this.parked.clear()
          this.halted.clear()
          this.numbering = undefined
      }
    }
  }
}

/** Who has a partition: by a claim whose token is not the last one any more, if a reset has fenced it. */
interface Holder {
  readonly token: number
  readonly owner: string
  isWanted: boolean
}

/** The state of a subscription, shared by all consumers of that name. */
export class Subscribed implements Transaction.Participant<Change> {
  readonly locks = new Transaction.Locks()
  readonly state = new State()
  /** The aggregated stream. */
  readonly stream: string
  /** The last token of each partition: of a claim, or raised by a reset. */
  readonly tokens = new Map<number, number>()
  readonly holders = new Map<number, Holder>()

  constructor(stream: string) {
    this.stream = stream
  }

  commit(changes: ReadonlyArray<Change>): void {
    this.state.apply(changes)
    if (changes.some(({ _tag }) => _tag === "Reset")) {
      for (const [partition, token] of this.tokens) this.tokens.set(partition, token + 1)
    }
  }

  /** Undefined if a consumer has the partition. */
  claim(partition: number, owner: string, ask: boolean): Holder | undefined {
    const holder = this.holders.get(partition)
    if (holder !== undefined) {
      holder.isWanted ||= ask
      return undefined
    }
    const token = (this.tokens.get(partition) ?? 0) + 1
    const claimed: Holder = { token, owner, isWanted: false }
    this.tokens.set(partition, token)
    this.holders.set(partition, claimed)
    return claimed
  }

  /** As a transaction sees it. */
  view(transaction: Option.Option<Transaction.Transaction>): State {
    if (Option.isNone(transaction)) return this.state
    const view = new State(this.state)
    view.apply(transaction.value.journal<Change>(this))
    return view
  }
}

/** What a subscription asks of its aggregated stream. */
export interface Source extends Pick<AggregatedStorage, "partitions" | "readPartition"> {
  readonly place: (globalPosition: number) => PartitionHead | undefined
  /** The message, if the store has it still. */
  readonly read: (messageId: string) => EncodedStoredMessage | undefined
  readonly numbering: () => number
  /** Wakes the listeners of the stream, after the commit. */
  readonly wake: Effect.Effect<void>
}

export const make = (
  name: string,
  subscribed: Subscribed,
  { numbering, partitions, place, read, readPartition, wake }: Source,
  drop: () => void
): SubscriptionStorage => {
  const view = Effect.map(Transaction.current, (transaction) => subscribed.view(transaction))

  const change = (
    locks: ReadonlyArray<string>,
    decide: (state: State) => Effect.Effect<Change | undefined>
  ) =>
    Transaction.required((transaction) =>
      Effect.gen(function*() {
        yield* subscribed.locks.acquire(transaction, locks)
        const decided = yield* decide(subscribed.view(Option.some(transaction)))
        if (decided === undefined) return false
        return yield* transaction.whileOpen(() =>
          Effect.succeed(transaction.journal<Change>(subscribed).push(decided) > 0)
        )
      })
    )

  return {
    initialise: (positions) =>
      Transaction.withTransaction(Effect.gen(function*() {
        yield* Transaction.required((transaction) => subscribed.locks.acquire(transaction, ["init"]))
        if ((yield* view).numbering !== undefined) return
        const starts = (yield* positions).filter(({ position }) => position >= 0)
        yield* change(["init"], () => Effect.succeed({ _tag: "Begin", starts, numbering: numbering() }))
      })),
    claims: (_mode, label) =>
      Effect.succeed({
        claim: (partition, { ask = false } = {}) =>
          Effect.map(
            Effect.acquireRelease(
              Effect.sync(() =>
                subscribed.claim(partition, label === undefined ? "this process" : `this process ${label}`, ask)
              ),
              (holder) =>
                Effect.sync(() => {
                  if (subscribed.holders.get(partition) === holder) subscribed.holders.delete(partition)
                })
            ),
            (holder): Claim | undefined =>
              holder && {
                partition,
                token: holder.token,
                lost: Effect.never,
                confirm: Effect.sync(() =>
                  subscribed.holders.get(partition) !== holder || subscribed.tokens.get(partition) !== holder.token
                    ? "Fenced"
                    : subscribed.state.pauseOf(partition) === undefined
                    ? "Confirmed"
                    : "Paused"
                )
              }
          ),
        othersCannotAsk: false
      }),
    read: (query) =>
      Effect.flatMap(
        view,
        (state) =>
          state.pauseOf(query.partition) === undefined
            ? readPartition(query)
            : Effect.succeed({ messages: [], more: false })
      ),
    pending: Effect.gen(function*() {
      const state = yield* view
      const { checkpoints, halted, numbering: began } = state
      if (began !== undefined && began !== numbering()) return yield* new StreamRebuiltError({ subscription: name })
      return (yield* partitions).flatMap((head) => {
        const checkpoint = checkpoints.get(head.partition) ?? -1
        const halt = halted.get(head.partition)
        const isHalted = halt !== undefined && halt.position > checkpoint
        const isPaused = state.pauseOf(head.partition) !== undefined
        return head.position > checkpoint || isPaused ? [{ ...head, checkpoint, isHalted, isPaused }] : []
      })
    }),
    checkpoint: (partition) => Effect.map(view, ({ checkpoints }) => checkpoints.get(partition) ?? -1),
    advance: ({ partition, token }, from, to) =>
      Effect.map(
        change([checkpointOf(partition)], ({ checkpoints }) =>
          Effect.succeed(
            subscribed.tokens.get(partition) === token && (checkpoints.get(partition) ?? -1) === from && to > from
              ? { _tag: "Advance", partition, position: to }
              : undefined
          )),
        (advanced): Advance =>
          !advanced
            ? "Fenced"
            : subscribed.state.pauseOf(partition) !== undefined
            ? "Paused"
            : subscribed.holders.get(partition)?.isWanted === true
            ? "Wanted"
            : "Advanced"
      ),
    park: (entry, { onlyIfParked = false } = {}) =>
      change(
        [`parked ${placeOf(entry)}`],
        ({ parked }) =>
          Effect.map(Clock.currentTimeMillis, (now) =>
            !onlyIfParked || parked.has(placeOf(entry))
              ? { _tag: "Park", entry, parkedAt: DateTime.makeUnsafe(now) }
              : undefined)
      ),
    halt: ({ partition, token }, { attempts, error, messageId, position }) =>
      change(
        [checkpointOf(partition)],
        () =>
          Effect.map(Clock.currentTimeMillis, (now) =>
            subscribed.tokens.get(partition) === token
              ? {
                _tag: "Halt",
                partition,
                halt: { position, messageId, error, attempts, since: DateTime.makeUnsafe(now) }
              }
              : undefined)
      ),
    parked: (places) =>
      Effect.map(view, ({ parked }) => {
        const wanted = places && new Set(places.map(placeOf))
        return Array.from(parked.values())
          .filter((entry) => wanted?.has(placeOf(entry)) !== false)
          .toSorted((a, b) => a.partition - b.partition || a.position - b.position)
          .map((entry): EncodedParkedMessage => ({ ...entry, stored: read(entry.messageId) }))
      }),
    unpark: (unparked) =>
      change([`parked ${placeOf(unparked)}`], ({ parked }) =>
        Effect.succeed(
          parked.has(placeOf(unparked))
            ? { _tag: "Unpark", partition: unparked.partition, position: unparked.position }
            : undefined
        )),
    pause: (partition, why) =>
      Effect.andThen(
        change([`paused ${partition}`], ({ paused }) =>
          Effect.map(Clock.currentTimeMillis, (now) => ({
            _tag: "Pause",
            partition,
            pause: { since: paused.get(partition)?.since ?? DateTime.makeUnsafe(now), ...why }
          }))),
        wake
      ),
    resume: (partition) =>
      Effect.tap(
        change([`paused ${partition}`], ({ paused }) =>
          Effect.succeed(paused.has(partition) ? { _tag: "Resume", partition } : undefined)),
        wake
      ),
    status: Effect.gen(function*() {
      const state = yield* view
      const { checkpoints, halted, parked } = state
      return (yield* partitions).map((head) => {
        const checkpoint = checkpoints.get(head.partition) ?? -1
        const halt = halted.get(head.partition)
        return {
          ...head,
          checkpoint,
          claimedBy: subscribed.holders.get(head.partition)?.owner,
          parked: Array.from(parked.values()).filter(({ partition }) => partition === head.partition).length,
          halted: halt !== undefined && halt.position > checkpoint ? halt : undefined,
          paused: state.pauseOf(head.partition)
        }
      })
    }),
    place: (globalPosition) => Effect.sync(() => place(globalPosition)),
    // Acknowledgements that are under way come before it.
    reset: Effect.gen(function*() {
      const heads = yield* partitions
      const { checkpoints } = yield* view
      const known = new Set([
        ...heads.map(({ partition }) => partition),
        ...checkpoints.keys(),
        ...subscribed.tokens.keys()
      ])
      yield* change(
        ["init", ...Array.from(known).toSorted((a, b) => a - b).map(checkpointOf)],
        () => Effect.succeed({ _tag: "Reset" })
      )
      yield* wake
    }),
    drop: Effect.sync(drop)
  }
}
