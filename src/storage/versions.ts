/**
 * The versions of a projection, as a backend keeps them. It keeps these promises:
 *
 * - at most one version is promoted, and all readers see the same one; a switch is seen as a whole or not at all;
 * - a version is made once, however many processes make it at once, with all its tables or with none;
 * - without a lag allowed, a version is promoted only when it has acknowledged, in every partition, what the promoted one
 *   has acknowledged at that moment; if there is none to compare with, what was linked when the promotion began;
 * - a version that was replaced by a lower one (a rollback) does not promote itself again;
 * - the promoted version is never dropped.
 *
 * What a version has acknowledged is the state of its subscription, whose name is {@link subscriptionOf}.
 */
import { Data } from "effect"
import type { DateTime, Duration, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError } from "../errors.ts"

/** The name of the subscription of a version. */
export const subscriptionOf = (projection: string, version: number): string => `${projection}_v${version}`

/** The name of a table of a version. */
export const tableOf = (table: string, version: number): string => `${table}_v${version}`

/** A version, as it is stored. */
export interface StoredVersion {
  readonly version: number
  readonly isPromoted: boolean
  /** When it was promoted last; undefined: never. */
  readonly promotedAt: DateTime.Utc | undefined
  /** Whether it was replaced by a lower version, and is promoted by hand alone. */
  readonly isHeld: boolean
  readonly createdAt: DateTime.Utc
  /** When it was promoted, or a process was at work on it, for the last time. */
  readonly usedAt: DateTime.Utc
  /** How many messages it has acknowledged. */
  readonly handled: number
  /** How many of its partitions are halted, at a message that it has not acknowledged. */
  readonly halted: number
}

/** The outcome of a promotion. `Behind`: by how many messages; `Held`: it does not promote itself. */
export type Promotion = Data.TaggedEnum<{
  Promoted: {}
  Behind: { readonly by: number }
  Held: {}
  Missing: {}
}>

/** Constructors and matchers of these outcomes. */
export const Promotion = Data.taggedEnum<Promotion>()

/** How a version is promoted. */
export interface PromotionOptions {
  /** By hand, or by a process that handles messages for it: then only if it is the highest, and not held. */
  readonly byHand: boolean
  /** How many linked messages may not be acknowledged by it; undefined: it has to be level with the promoted version. */
  readonly lag: number | undefined
  /**
   * Whether the promoted version may be kept from acknowledging, for half a second at most, until this one is level with it:
   * otherwise it is promoted only if it is level now.
   */
  readonly holdUp: boolean
}

/** The state of a version in memory: changes are made in the transaction that is open, and roll back with it. */
export interface State<in out S> {
  /** As the transaction that is open sees it, if one is. */
  readonly get: Effect.Effect<S, SqlError>
  /** Waits for other transactions that have changed it. */
  readonly update: (change: (state: S) => S) => Effect.Effect<void, SqlError>
}

/** The versions of one projection. */
export interface VersionStorage {
  /**
   * Makes a version, unless it is there: `create` makes its tables, in the same transaction. Fails if it was made with
   * other tables, if one of them was not made, if a name is taken.
   */
  readonly register: <E, R>(
    version: number,
    tables: ReadonlyArray<string>,
    create: Effect.Effect<unknown, E, R>
  ) => Effect.Effect<void, E | InvalidNameError | SetupError | SqlError, R>
  /** In the order of versions. */
  readonly versions: Effect.Effect<ReadonlyArray<StoredVersion>, SqlError>
  /** The version that readers see, as the transaction that is open sees it; undefined: none. */
  readonly promoted: Effect.Effect<number | undefined, SqlError>
  /** Notes that a process is at work on a version. Whether it is still there. */
  readonly use: (version: number) => Effect.Effect<boolean, SqlError>
  /** Not inside a transaction. */
  readonly promote: (version: number, options: PromotionOptions) => Effect.Effect<Promotion, SetupError | SqlError>
  /** Removes a version with all that belongs to it. Whether it was there, and not promoted. */
  readonly drop: (version: number) => Effect.Effect<boolean, SqlError>
  /** Removes the versions that are not promoted, and were not used for this long. Which they were. */
  readonly dropUnused: (keep: Duration.Duration) => Effect.Effect<ReadonlyArray<number>, SqlError>
  /** Removes the projection with all its versions, and what readers see of it. */
  readonly dropAll: Effect.Effect<void, SqlError>
  /** The position that a version has acknowledged last in a partition; -1: none. */
  readonly checkpoint: (version: number, partition: number) => Effect.Effect<number, SqlError>
  /** The state of a version; undefined where versions have tables. */
  readonly state: (<S>(version: number, initial: () => S) => State<S>) | undefined
}
