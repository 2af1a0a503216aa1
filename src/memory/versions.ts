/** The versions of a projection in memory: the state of each is a value, which rolls back with the transaction. */
import { Clock, DateTime, Duration, Effect, Option } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, SetupError } from "../errors.ts"
import type { PartitionHead } from "../Storage.ts"
import { Promotion, type State, type StoredVersion, subscriptionOf, type VersionStorage } from "../storage/versions.ts"
import type { Subscribed } from "./subscribed.ts"
import * as Transaction from "./transaction.ts"

/** A value; its changes, each the whole value, are the entries of journals. */
class Cell<S> implements Transaction.Participant<S> {
  readonly locks = new Transaction.Locks()
  private value: S

  constructor(value: S) {
    this.value = value
  }

  commit(changes: ReadonlyArray<S>): void {
    if (changes.length > 0) this.value = changes[changes.length - 1] as S
  }

  view(transaction: Option.Option<Transaction.Transaction>): S {
    const changes = Option.isSome(transaction) ? transaction.value.journal<S>(this) : []
    return changes.length > 0 ? changes[changes.length - 1] as S : this.value
  }

  readonly state: State<S> = {
    get: Effect.map(Transaction.current, (transaction) => this.view(transaction)),
    update: (change) =>
      Transaction.required((transaction) =>
        Effect.andThen(
          this.locks.acquire(transaction, ["state"]),
          transaction.whileOpen(() =>
            Effect.sync(() => {
              transaction.journal<S>(this).push(change(this.view(Option.some(transaction))))
            })
          )
        )
      )
  }
}

interface Version {
  readonly createdAt: DateTime.Utc
  promotedAt: DateTime.Utc | undefined
  usedAt: DateTime.Utc
  isHeld: boolean
  cell: Cell<unknown> | undefined
}

/** The versions of a projection, shared by all who made it by its name. */
export class Versions {
  readonly byNumber = new Map<number, Version>()
  promoted: number | undefined
}

/** What versions ask of their aggregated stream. */
export interface Source {
  readonly heads: Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /** The state of a subscription; undefined if there is none of this name. */
  readonly subscribed: (name: string) => Subscribed | undefined
  readonly unsubscribe: (name: string) => void
}

const now = Effect.map(Clock.currentTimeMillis, DateTime.makeUnsafe)

export const make = (name: string, versions: Versions, source: Source): VersionStorage => {
  const checkpoints = (version: number): ReadonlyMap<number, number> =>
    source.subscribed(subscriptionOf(name, version))?.state.checkpoints ?? new Map()

  const halted = (version: number): number => {
    const reached = checkpoints(version)
    const halts = source.subscribed(subscriptionOf(name, version))?.state.halted ?? new Map()
    return Array.from(halts).filter(([partition, { position, unknownType }]) =>
      unknownType === undefined && position > (reached.get(partition) ?? -1)
    ).length
  }

  const behind = (version: number, goal: ReadonlyArray<PartitionHead>): number => {
    const reached = checkpoints(version)
    return goal.reduce(
      (sum, { partition, position }) => sum + Math.max(position - (reached.get(partition) ?? -1), 0),
      0
    )
  }

  /** What a version has to have acknowledged. */
  const goalOf = (version: number, ends: ReadonlyArray<PartitionHead>): ReadonlyArray<PartitionHead> => {
    if (versions.promoted === undefined) return ends
    const old = source.subscribed(subscriptionOf(name, versions.promoted))
    const numbering = source.subscribed(subscriptionOf(name, version))?.state.numbering
    return old === undefined || old.state.numbering !== numbering
      ? ends
      : Array.from(old.state.checkpoints, ([partition, position]) => ({ partition, position }))
  }

  const remove = (version: number): boolean => {
    if (version === versions.promoted || !versions.byNumber.delete(version)) return false
    source.unsubscribe(subscriptionOf(name, version))
    return true
  }

  return {
    register: Effect.fnUntraced(function*(version, tables) {
      if (tables.length > 0) {
        const reason = "keeps its versions in tables, and the store is in memory: keep them in a `Projection.state`"
        return yield* new SetupError({ identifier: name, reason })
      }
      if (versions.byNumber.has(version)) return
      const identifier = subscriptionOf(name, version)
      if (source.subscribed(identifier) !== undefined) {
        const reason = `is taken by a subscription: version ${version} of "${name}" is to have that name`
        return yield* new InvalidNameError({ identifier, reason })
      }
      const at = yield* now
      versions.byNumber.set(version, {
        createdAt: at,
        promotedAt: undefined,
        usedAt: at,
        isHeld: false,
        cell: undefined
      })
    }),

    versions: Effect.sync(() =>
      Array.from(versions.byNumber, ([version, { createdAt, isHeld, promotedAt, usedAt }]): StoredVersion => ({
        version,
        isPromoted: version === versions.promoted,
        promotedAt,
        isHeld,
        createdAt,
        usedAt,
        handled: Array.from(checkpoints(version).values()).reduce((sum, position) => sum + position + 1, 0),
        halted: halted(version)
      })).toSorted((a, b) => a.version - b.version)
    ),

    promoted: Effect.sync(() => versions.promoted),

    use: (version) =>
      Effect.map(now, (at) => {
        const used = versions.byNumber.get(version)
        if (used !== undefined) used.usedAt = at
        return used !== undefined
      }),

    // Decided and done in one step: nothing is acknowledged in between.
    promote: (version, { byHand, lag }) =>
      Effect.zipWith(now, source.heads, (at, ends) => {
        const next = versions.byNumber.get(version)
        if (next === undefined) return Promotion.Missing()
        const old = versions.promoted
        if (old === version) return Promotion.Promoted()
        if (!byHand && (next.isHeld || (old !== undefined && old > version))) return Promotion.Held()
        const by = behind(version, lag === undefined ? goalOf(version, ends) : ends)
        if (by > (lag ?? 0)) return Promotion.Behind({ by })
        const replaced = old === undefined ? undefined : versions.byNumber.get(old)
        if (replaced !== undefined && old !== undefined) {
          replaced.usedAt = at
          replaced.isHeld = old > version
        }
        versions.promoted = version
        next.isHeld = false
        next.promotedAt = at
        next.usedAt = at
        return Promotion.Promoted()
      }),

    drop: (version) => Effect.sync(() => remove(version)),

    dropUnused: (keep) =>
      Effect.map(Clock.currentTimeMillis, (at) => {
        const unused = Array.from(versions.byNumber).filter(([version, { usedAt }]) =>
          version !== versions.promoted && usedAt.epochMilliseconds + Duration.toMillis(keep) <= at
        )
        for (const [version] of unused) remove(version)
        return unused.map(([version]) => version)
      }),

    dropAll: Effect.sync(() => {
      versions.promoted = undefined
      for (const version of versions.byNumber.keys()) remove(version)
    }),

    checkpoint: (version, partition) => Effect.sync(() => checkpoints(version).get(partition) ?? -1),

    state: <S>(version: number, initial: () => S) => {
      const of = versions.byNumber.get(version)
      const cell = of?.cell ?? new Cell<unknown>(initial())
      if (of !== undefined) of.cell = cell
      return (cell as Cell<S>).state // one version has one type of state
    }
  }
}
