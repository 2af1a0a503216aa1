/** What a subscription remembers, in memory: checkpoints and parked messages roll back with the transaction. */
import { Clock, DateTime, Effect, Option } from "effect"
import { StreamRebuiltError } from "../errors.ts"
import type {
  Advance,
  AggregatedStorage,
  Claim,
  Claims,
  EncodedParkedMessage,
  EncodedStoredMessage,
  ParkedEntry,
  PartitionHead,
  SubscriptionStorage
} from "../Storage.ts"
import * as Transaction from "./transaction.ts"

type Change =
  | { readonly _tag: "Advance"; readonly partition: number; readonly position: number }
  | { readonly _tag: "Park"; readonly entry: ParkedEntry; readonly parkedAt: DateTime.Utc }
  | { readonly _tag: "Unpark"; readonly partition: number; readonly position: number }
  | { readonly _tag: "Begin"; readonly starts: ReadonlyArray<PartitionHead>; readonly numbering: number }
  | { readonly _tag: "Reset" }

type Parked = ParkedEntry & { readonly parkedAt: DateTime.Utc }

const placeOf = ({ partition, position }: PartitionHead): string => `${partition} ${position}`

const checkpointOf = (partition: number): string => `checkpoint ${partition}`

/** What is known after some changes. */
class State {
  readonly checkpoints: Map<number, number>
  readonly parked: Map<string, Parked>
  /** Of the stream, when this began. */
  numbering: number | undefined

  constructor(other?: State) {
    this.checkpoints = new Map(other?.checkpoints)
    this.parked = new Map(other?.parked)
    this.numbering = other?.numbering
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
        case "Begin":
          for (const { partition, position } of change.starts) this.checkpoints.set(partition, position)
          this.numbering = change.numbering
          break
        case "Reset":
          this.checkpoints.clear()
          this.parked.clear()
          this.numbering = undefined
      }
    }
  }
}

/** A subscription's memory, shared by all who use its name. */
export class Subscribed implements Transaction.Participant<Change> {
  readonly locks = new Transaction.Locks()
  readonly state = new State()
  /** The aggregated stream. */
  readonly stream: string
  /** Tokens, and who has which. */
  readonly tokens = new Map<number, number>()
  readonly owners = new Map<number, number>()
  readonly wanted = new Set<number>()

  constructor(stream: string) {
    this.stream = stream
  }

  commit(changes: ReadonlyArray<Change>): void {
    this.state.apply(changes)
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
export interface Source extends Pick<AggregatedStorage, "partitions"> {
  readonly place: (globalPosition: number) => PartitionHead | undefined
  /** The message, if the store has it still. */
  readonly read: (messageId: string) => EncodedStoredMessage | undefined
  readonly numbering: () => number
}

export const make = (
  name: string,
  subscribed: Subscribed,
  { numbering, partitions, place, read }: Source,
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

  const claims: Claims = {
    claim: (partition) =>
      Effect.sync(() => {
        if (subscribed.owners.has(partition)) return undefined
        const token = (subscribed.tokens.get(partition) ?? 0) + 1
        subscribed.tokens.set(partition, token)
        subscribed.owners.set(partition, token)
        subscribed.wanted.delete(partition)
        return { partition, token }
      }),
    want: (partition) => Effect.sync(() => void subscribed.wanted.add(partition)),
    release: ({ partition, token }) =>
      Effect.sync(() => {
        if (subscribed.owners.get(partition) === token) subscribed.owners.delete(partition)
      }),
    confirm: ({ partition, token }) => Effect.sync(() => subscribed.owners.get(partition) === token),
    lost: () => Effect.never
  }

  return {
    initialise: (positions) =>
      Transaction.withTransaction(Effect.gen(function*() {
        yield* Transaction.required((transaction) => subscribed.locks.acquire(transaction, ["init"]))
        if ((yield* view).numbering !== undefined) return
        const starts = (yield* positions).filter(({ position }) => position >= 0)
        yield* change(["init"], () => Effect.succeed({ _tag: "Begin", starts, numbering: numbering() }))
      })),
    claims: () =>
      Effect.gen(function*() {
        const held = new Set<Claim>()
        yield* Effect.addFinalizer(() => Effect.forEach(held, claims.release, { discard: true }))
        return {
          ...claims,
          claim: (partition) =>
            Effect.uninterruptible(Effect.tap(claims.claim(partition), (claim) =>
              Effect.sync(() => {
                if (claim !== undefined) held.add(claim)
              }))),
          release: (claim) =>
            Effect.andThen(
              claims.release(claim),
              Effect.sync(() => void held.delete(claim))
            )
        }
      }),
    pending: Effect.gen(function*() {
      const { checkpoints, numbering: began } = yield* view
      if (began !== undefined && began !== numbering()) return yield* new StreamRebuiltError({ subscription: name })
      return (yield* partitions).flatMap((head) => {
        const checkpoint = checkpoints.get(head.partition) ?? -1
        return head.position > checkpoint ? [{ ...head, checkpoint }] : []
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
        (advanced): Advance => !advanced ? "Fenced" : subscribed.wanted.has(partition) ? "Wanted" : "Advanced"
      ),
    park: (entry) =>
      Effect.asVoid(
        change([`parked ${placeOf(entry)}`], () =>
          Effect.map(Clock.currentTimeMillis, (now) => ({ _tag: "Park", entry, parkedAt: DateTime.makeUnsafe(now) })))
      ),
    repark: (entry) =>
      change(
        [`parked ${placeOf(entry)}`],
        ({ parked }) =>
          Effect.map(Clock.currentTimeMillis, (now) =>
            parked.has(placeOf(entry))
              ? { _tag: "Park", entry, parkedAt: DateTime.makeUnsafe(now) }
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
    unpark: (partition, position) =>
      change([`parked ${partition} ${position}`], ({ parked }) =>
        Effect.succeed(
          parked.has(placeOf({ partition, position })) ? { _tag: "Unpark", partition, position } : undefined
        )),
    status: Effect.gen(function*() {
      const { checkpoints, parked } = yield* view
      return (yield* partitions).map((head) => ({
        ...head,
        checkpoint: checkpoints.get(head.partition) ?? -1,
        claimedBy: subscribed.owners.has(head.partition) ? "this process" : undefined,
        parked: Array.from(parked.values()).filter(({ partition }) => partition === head.partition).length
      }))
    }),
    place: (globalPosition) => Effect.sync(() => place(globalPosition)),
    // What is being acknowledged comes before it.
    reset: Effect.flatMap(view, ({ checkpoints }) =>
      Effect.asVoid(change(
        ["init", ...Array.from(checkpoints.keys(), checkpointOf)],
        () => Effect.succeed({ _tag: "Reset" })
      ))),
    drop: Effect.sync(drop)
  }
}
