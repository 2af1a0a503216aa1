/**
 * Snapshots of folds, where messages have personal fields: a state may have values of any subject in it. So it is encrypted as a
 * whole, under a key that is nobody's, the *epoch*.
 *
 * - Whenever a subject is forgotten, the epoch ends in the same transaction: its key is removed, and all snapshots are void.
 * - A process keeps no state that was begun in an earlier epoch than the one it has seen last, and saves a state only in the epoch in
 *   which it was begun: what it was folded of had not been forgotten before that. (What is held of keys and states is void with
 *   the epoch.)
 *
 * So no snapshot that can be decrypted has values of a subject that is forgotten.
 */
import { Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { EncodedSnapshot, SavedSnapshot, SnapshotKey } from "../Storage.ts"
import { type DataKey, decrypt, encrypt, isEncrypted, nameOf, parse } from "./cipher.ts"
import { isRefused, type Keys } from "./keys.ts"

/** Whose key that is: the empty name, which no subject has. */
export const nobody = ""

export interface Snapshots {
  /** Looks which epoch it is. */
  readonly observe: Effect.Effect<void>
  /** Undefined: it is of another epoch, or cannot be encrypted, and is not to be kept. */
  readonly encrypt: (snapshot: SavedSnapshot) => Effect.Effect<SavedSnapshot | undefined, SqlError>
  /** Undefined: it is of another epoch, or is not encrypted, and is void. */
  readonly decrypt: (
    key: SnapshotKey,
    snapshot: EncodedSnapshot
  ) => Effect.Effect<EncodedSnapshot | undefined, SqlError>
}

const boundTo = (
  { fingerprint, fold, source }: SnapshotKey,
  { ends, version }: Omit<EncodedSnapshot, "state">
): string => `snapshot ${JSON.stringify([fold, source, fingerprint, version, ends])}`

export const make = (keys: Keys): Snapshots => {
  /** The name of the epoch's key, as it was seen last; undefined: never. */
  let epoch: string | undefined

  const look: Effect.Effect<DataKey | undefined, SqlError> = Effect.map(keys.toEncrypt([nobody], true), (found) => {
    const key = found.get(nobody)
    if (key === undefined || isRefused(key)) return undefined
    const name = nameOf(key)
    if (name === epoch) return key
    // After the look: what is begun from now on is begun in this epoch.
    epoch = name
    keys.clear()
    return undefined
  })
  // Who may not write keys may read, and keeps no snapshots.
  const observe = Effect.ignore(look)

  return {
    observe,
    encrypt: (snapshot) =>
      Effect.flatMap(look, (key) =>
        key === undefined
          ? Effect.undefined
          : Effect.promise(async () => ({
            ...snapshot,
            state: await encrypt(key, boundTo(snapshot, snapshot), snapshot.state)
          }))),
    decrypt: Effect.fnUntraced(function*(key, snapshot) {
      const parsed = isEncrypted(snapshot.state) ? parse(snapshot.state) : Result.failVoid
      if (Result.isFailure(parsed)) return undefined
      const name = nameOf(parsed.success)
      const found = (yield* keys.find(new Map([[name, parsed.success]]))).get(name)
      if (name !== epoch || found === "forgotten") yield* observe
      if (found === undefined || found === "forgotten" || isRefused(found)) return undefined
      return yield* Effect.promise(() =>
        decrypt(parsed.success, found, boundTo(key, snapshot)).then(
          (state) => ({ ...snapshot, state }),
          () => undefined
        )
      )
    })
  }
}
