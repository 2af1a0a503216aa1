/**
 * The port: what a backend offers to a message store, in encoded form. Its parts stand in `storage/`, each with the
 * promises that a backend keeps; `effect-message-store/testing` has the suites that check them.
 *
 * Everything runs inside the transaction that is open in the fiber's context, and commits or rolls back with it.
 */
import { Context } from "effect"
import type { Effect, Scope } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError } from "./errors.ts"
import type { ArchiveStorage } from "./storage/archive.ts"
import type { MessageStorage } from "./storage/messages.ts"
import type { OperatorStorage } from "./storage/operator.ts"
import type { ScheduleStorage } from "./storage/scheduled.ts"
import type { SnapshotStorage } from "./storage/snapshots.ts"
import type { AggregatedStorage, StreamDefinition } from "./storage/streams.ts"
import type { SubjectKeyStorage } from "./storage/subjectKeys.ts"
import type { TaggingStorage } from "./storage/tagging.ts"

export * from "./storage/archive.ts"
export type { Listener } from "./storage/listeners.ts"
export * from "./storage/messages.ts"
export * from "./storage/operator.ts"
export * from "./storage/partitions.ts"
export * from "./storage/scheduled.ts"
export * from "./storage/snapshots.ts"
export * from "./storage/streams.ts"
export * from "./storage/subjectKeys.ts"
export * from "./storage/subscriptions.ts"
export * from "./storage/tagging.ts"
export * from "./storage/versions.ts"

/** Runs an effect so that what it reads comes from one snapshot. */
export interface Snapshot {
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R>
}

/** Bounds the transactions in which handlers run: others of the process need connections too. */
export interface HandlerTransactions {
  /** How many are open at once, at most. */
  readonly limit: number
  /** Waits for a turn. */
  readonly inTurn: <A, E, R>(transaction: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Everything of one store. */
export interface Backend extends MessageStorage, SnapshotStorage, TaggingStorage, ScheduleStorage, ArchiveStorage {
  /** The keys of whom personal data is of. Stores whose messages have none do not use it. */
  readonly subjectKeys: SubjectKeyStorage
  /** Commits on success, rolls back on failure and interruption; nests. */
  readonly withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /** Undefined where transactions need nothing that is scarce. */
  readonly handlerTransactions: HandlerTransactions | undefined
  /** Whether a transaction is open in the fiber's context. */
  readonly inTransaction: Effect.Effect<boolean>
  /** Runs an effect once the open transaction has been committed, and never if it is rolled back; at once where none is open. */
  readonly afterCommit: (effect: Effect.Effect<void>) => Effect.Effect<void>
  /** One view until the scope closes; inside a transaction, that transaction's view. */
  readonly snapshot: Effect.Effect<Snapshot, SqlError, Scope.Scope>
  /**
   * Which run of which server has answered last of those who were asked where streams, tags and partitions end, and what is declared.
   * Another one may lack what was read or declared before.
   */
  readonly serverRun: () => number
  /** What operators ask, without the application's schemas and handlers. */
  readonly operator: OperatorStorage
  /** Makes what an aggregated stream needs, where it does not exist. */
  readonly aggregatedStream: (
    definition: StreamDefinition
  ) => Effect.Effect<AggregatedStorage, InvalidNameError | SetupError | MigrationError | SqlError>
}

/** A backend of one store. */
export class Storage extends Context.Service<Storage, Backend>()("effect-message-store/Storage") {}
