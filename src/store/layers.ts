/** The layers of a store, and what they run: the static members of its class. */
import type { Context, Effect, Layer } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError, UnsupportedEngineError } from "../errors.ts"
import type { Path } from "../Partitioner.ts"
import type { Storage } from "../Storage.ts"
import type { Migration } from "../storage/migrations.ts"
import type { ReadOnly, ReadOnlyStore } from "./readOnly.ts"
import type { SchedulerLayerOptions } from "./schedule.ts"
import type { TaggingLayerOptions } from "./tagging.ts"

/** Why a store whose database objects should be there cannot be opened. */
export type OpenError = InvalidNameError | SetupError | UnsupportedEngineError | SqlError

/** What the class of a store has beside its key. */
export interface StoreLayers<in out Self, in out A, P extends Path = Path, out R = never> {
  /**
   * The store on PostgreSQL; runs the migrations that have not run yet first. A store whose schema has personal fields needs a
   * `KeyEncryption` as well (`R`), and keeps its keys in a `SubjectKeys` service, if one is provided.
   */
  readonly layer: Layer.Layer<Self, OpenError | MigrationError, SqlClient | R>
  /**
   * The store on PostgreSQL, for those who run the migrations themselves: its own, and those of its aggregated streams
   * and their subscriptions.
   */
  readonly layerNoMigrations: Layer.Layer<Self, OpenError, SqlClient | R>
  /** The store in memory: the same contract, no database. Empty each time the layer is built. */
  readonly layerMemory: Layer.Layer<Self, InvalidNameError, R>
  /** The store on any backend that provides the port. */
  readonly layerStorage: Layer.Layer<Self, InvalidNameError | SqlError, Storage | R>
  /**
   * The read-only store: a service of its own, which may read another server than the one that is written to.
   *
   * **Example**
   *
   * ```ts
   * const replica = yield* Orders.ReadOnly
   * yield* replica.waitFor(position.globalPosition)
   * ```
   */
  readonly ReadOnly: Context.Service<ReadOnly<Self>, ReadOnlyStore<A, P>>
  /**
   * The read-only store on a standby, or for a role that may not write. It makes and changes nothing, and runs no migrations, but
   * checks that the database objects are of this version. Reads that recovery cancels are retried.
   */
  readonly layerReadOnly: Layer.Layer<ReadOnly<Self>, OpenError, SqlClient | R>
  /** The read-only store where there is no standby, and in tests: it reads the store that is written to, on any backend. */
  readonly layerReadOnlyOnPrimary: Layer.Layer<ReadOnly<Self>, SqlError, Self>
  /**
   * Runs the store's `tagging` in the background when the layer is built. Failures are logged; `restart` says when it runs again
   * after one (default: after 30 seconds).
   */
  readonly layerTagging: (options?: TaggingLayerOptions) => Layer.Layer<never, never, Self>
  /** Moves scheduled messages into their streams when they are due, for as long as the layer lives. */
  readonly layerScheduler: (options?: SchedulerLayerOptions) => Layer.Layer<never, never, Self>
  /** What `layer` runs: numbered migrations, each a list of SQL statements to be run in their order in one transaction. */
  readonly migrations: Effect.Effect<ReadonlyArray<Migration>, InvalidNameError>
  /** What an aggregated stream of this store runs when it is made. */
  readonly streamMigrations: (name: string) => Effect.Effect<ReadonlyArray<Migration>, InvalidNameError>
  /** What a subscription runs when it is made. */
  readonly subscriptionMigrations: (name: string) => Effect.Effect<ReadonlyArray<Migration>, InvalidNameError>
}
