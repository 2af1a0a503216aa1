/** Errors of databases that are not what a store needs: another engine, or a standby that is behind. */
import { Schema } from "effect"

/**
 * The database speaks PostgreSQL's protocol and lacks what a store relies on: without it, writers that should exclude each other
 * would not, or messages would never be projected. Nothing was made or changed. docs/scale.md tells which engines there are, and
 * what works.
 */
export class UnsupportedEngineError extends Schema.TaggedError<UnsupportedEngineError>(
  "effect-message-store/errors/UnsupportedEngineError"
)("UnsupportedEngineError", {
  /** What it says of itself: `version()`. */
  engine: Schema.String,
  /** What is missing. */
  missing: Schema.Array(Schema.String)
}) {
  override get message() {
    return `this database ("${this.engine}") is not PostgreSQL as a message store needs it. It lacks ${
      this.missing.join("; ")
    }. docs/scale.md tells which engines there are, and what works`
  }
}

/**
 * `waitFor` timed out: the message at this global position is not visible here. The standby is behind, or not
 * replicating; or the write was rolled back, its message was deleted, or was lost with the server that had it.
 */
export class NotReplicatedError extends Schema.TaggedError<NotReplicatedError>(
  "effect-message-store/errors/NotReplicatedError"
)("NotReplicatedError", {
  store: Schema.String,
  globalPosition: Schema.Natural,
  /** In milliseconds. */
  waited: Schema.Number
}) {
  override get message() {
    return `the message at global position ${this.globalPosition} of the store "${this.store}" was not visible within ` +
      `${this.waited} ms: look how far this standby is behind (pg_stat_replication on the primary), or read from the primary`
  }
}
