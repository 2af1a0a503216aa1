/** What the consumers of a subscription share, in memory: its state after the commits, and who has which partition. */
import { type DateTime, Option } from "effect"
import type { EncodedParkedMessage, Halt, ParkedEntry, PartitionHead, Pause } from "../Storage.ts"
import * as Transaction from "./transaction.ts"

/** `unknownType` if it was left to others, `key` if no more of that key could be parked. */
export type Halted = Halt & { readonly unknownType: string | undefined; readonly key: string | undefined }

/** What a transaction does to the state. */
export type Change =
  | { readonly _tag: "Advance"; readonly partition: number; readonly position: number; readonly at: DateTime.Utc }
  | {
    readonly _tag: "Park"
    readonly entry: ParkedEntry
    readonly parkedAt: DateTime.Utc
    readonly requeuedAt?: DateTime.Utc | undefined
  }
  | { readonly _tag: "Requeue"; readonly entries: ReadonlyArray<Parked>; readonly at: DateTime.Utc | undefined }
  | { readonly _tag: "Unpark"; readonly partition: number; readonly position: number }
  | { readonly _tag: "Halt"; readonly partition: number; readonly halt: Halted }
  | { readonly _tag: "Pause"; readonly partition: number | undefined; readonly pause: Pause }
  | { readonly _tag: "Resume"; readonly partition: number | undefined }
  | { readonly _tag: "Begin"; readonly starts: ReadonlyArray<PartitionHead>; readonly numbering: number }
  | { readonly _tag: "Reset" }

export type Parked = Omit<EncodedParkedMessage, "stored">

export const placeOf = ({ partition, position }: PartitionHead): string => `${partition} ${position}`

export const checkpointOf = (partition: number): string => `checkpoint ${partition}`

/** The state after some changes. */
export class State {
  readonly checkpoints: Map<number, number>
  /** When each was moved last. */
  readonly acknowledged: Map<number, DateTime.Utc>
  readonly parked: Map<string, Parked>
  readonly halted: Map<number, Halted>
  /** Undefined: the subscription. */
  readonly paused: Map<number | undefined, Pause>
  /** Of the stream, when this began. */
  numbering: number | undefined

  constructor(other?: State) {
    this.checkpoints = new Map(other?.checkpoints)
    this.acknowledged = new Map(other?.acknowledged)
    this.parked = new Map(other?.parked)
    this.halted = new Map(other?.halted)
    this.paused = new Map(other?.paused)
    this.numbering = other?.numbering
  }

  pauseOf(partition: number): Pause | undefined {
    return this.paused.get(undefined) ?? this.paused.get(partition)
  }

  /** Of those with a key, in their order. */
  parkedWith(partition: number, key: string | undefined): ReadonlyArray<Parked> {
    return key === undefined ? [] : Array.from(this.parked.values())
      .filter((entry) => entry.partition === partition && entry.key === key)
      .toSorted((a, b) => a.position - b.position)
  }

  /** Whether none with its key is parked before it. */
  isFirst(entry: Parked): boolean {
    const [first = entry] = this.parkedWith(entry.partition, entry.key)
    return first.position >= entry.position
  }

  /** A partition that was halted because no more could be parked behind an entry goes on. */
  private goOn(entry: Parked | undefined): void {
    if (entry?.key === undefined || this.halted.get(entry.partition)?.key !== entry.key) return
    this.halted.delete(entry.partition)
  }

  apply(changes: ReadonlyArray<Change>): void {
    for (const change of changes) {
      switch (change._tag) {
        case "Advance":
          this.checkpoints.set(change.partition, change.position)
          this.acknowledged.set(change.partition, change.at)
          break
        case "Park":
          this.parked.set(placeOf(change.entry), {
            ...change.entry,
            parkedAt: change.parkedAt,
            requeuedAt: change.requeuedAt
          })
          break
        case "Requeue":
          for (const entry of change.entries) {
            if (this.parked.has(placeOf(entry))) this.parked.set(placeOf(entry), { ...entry, requeuedAt: change.at })
            if (change.at !== undefined) this.goOn(entry)
          }
          break
        case "Unpark":
          this.goOn(this.parked.get(placeOf(change)))
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
          this.acknowledged.clear()
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
  readonly since: DateTime.Utc
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
  claim(partition: number, owner: string, ask: boolean, since: DateTime.Utc): Holder | undefined {
    const holder = this.holders.get(partition)
    if (holder !== undefined) {
      holder.isWanted ||= ask
      return undefined
    }
    const token = (this.tokens.get(partition) ?? 0) + 1
    const claimed: Holder = { token, owner, since, isWanted: false }
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
