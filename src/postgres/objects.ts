/**
 * The names of a store's database objects, as PostgreSQL and depeche_db know them.
 *
 * They are spliced into SQL, so they are made here alone, from a name that {@link checkName} let pass.
 */
import { Result } from "effect"
import { InvalidNameError } from "../errors.ts"

export interface Objects {
  readonly table: string
  readonly sequence: string
  readonly versionConstraint: string
  /** depeche_db's own function, which Python processes call. */
  readonly writeFunction: string
  /** depeche_db's channel of new messages. */
  readonly channel: string
  readonly appendFunction: string
  readonly migrationsTable: string
}

/** PostgreSQL cuts identifiers off at 63 bytes; 30 leave room for every prefix and suffix. */
export const checkName = (name: string): Result.Result<string, InvalidNameError> =>
  /^[a-z_][a-z0-9_]{0,29}$/.test(name) ? Result.succeed(name) : Result.fail(new InvalidNameError({ name }))

export const forStore = (name: string): Result.Result<Objects, InvalidNameError> =>
  Result.map(checkName(name), (n) => ({
    table: `depeche_msgs_${n}`,
    sequence: `depeche_msgs_${n}_global_seq`,
    versionConstraint: `depeche_msgs_${n}_version_uq`,
    writeFunction: `depeche_write_message_${n}`,
    channel: `depeche_${n}_messages`,
    appendFunction: `effect_message_store_append_${n}`,
    migrationsTable: `effect_message_store_migrations_${n}`
  }))

/** The key under which writers of a stream exclude each other, Python's included: part of the wire contract. */
export const streamLockKey = (stream: string): string => `left('x' || md5(${stream}), 17)::bit(64)::bigint`
