/**
 * What is kept of folds: the last states in the process, and a snapshot in the store once enough has been folded.
 *
 * Neither is trusted. A state that is remembered may be behind, and whoever decides on it is told so by the database; a snapshot
 * that does not decode is folded anew, and replaced.
 */
import { Effect, Result, Schema } from "effect"
import type { Scope } from "effect"
import { type Fold, type Snapshot, snapshotOf, typesOf } from "../Fold.ts"
import { attempt } from "../internal/attempt.ts"
import type { Freshness, Stamp } from "../personal/freshness.ts"
import type { EncodedSnapshot, SavedSnapshot, SnapshotKey, Storage } from "../Storage.ts"
import * as Writer from "./snapshotWriter.ts"

/** What messages came to. */
export interface Standing<S> {
  readonly state: S
  /** How many of them are behind the snapshot in the store. */
  readonly unsaved: number
}

/** What is kept of a fold on one source. */
export interface Kept<S, Known extends Standing<S>> {
  readonly key: SnapshotKey
  /** What this process knew last. */
  readonly remembered: () => Known | undefined
  /** Remembers what is known, and has it written if that is due; gives it back as it is remembered. */
  readonly remember: (known: Known) => Known
  /** The state of a snapshot; undefined: it cannot be used. */
  readonly stateOf: (snapshot: EncodedSnapshot) => { readonly state: S } | undefined
}

/** Finds what is kept of folds; undefined: the fold has no snapshots. */
export interface Snapshots {
  <S, Known extends Standing<S>>(
    fold: Fold<S, never>,
    source: string,
    standsAt: (known: Known) => Omit<SavedSnapshot, "state" | keyof SnapshotKey>
  ): Effect.Effect<Kept<S, Known> | undefined>
}

/** Of the states of one fold, to JSON text and back; and what tells apart the ways to fold. */
interface Codec {
  readonly encode: (state: unknown) => Result.Result<string, unknown>
  readonly decode: (text: string) => Result.Result<unknown, unknown>
  readonly fingerprint: string
}

/** A state whose JSON has more characters is not kept. */
const maximumLength = 1024 * 1024

/**
 * @internal
 */
export const make = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  store: string,
  capacity: number,
  freshness: Freshness | undefined
): Effect.fn.Return<Snapshots, never, Scope.Scope> {
  const codecs = new WeakMap<object, Codec>()
  /** In the order in which they were used. */
  const states = new Map<string, { readonly known: unknown; readonly stamp: Stamp | undefined }>()
  const writer = yield* Writer.make(storage, store)

  /** Why a state cannot be used is logged: what a check of its schema says of it may be personal. */
  const told = (reason: unknown): unknown =>
    freshness === undefined ? reason : new Error("its schema says why, and may say personal data with it")

  const codecOf = <S>(fold: Fold<S, never>, snapshot: Snapshot<S>): Effect.Effect<Codec> => {
    const made = codecs.get(snapshot)
    if (made !== undefined) return Effect.succeed(made)
    return Effect.map(makeCodec(fold, snapshot), (codec) => {
      codecs.set(snapshot, codec)
      return codec
    })
  }

  return <S, Known extends Standing<S>>(
    fold: Fold<S, never>,
    source: string,
    standsAt: (known: Known) => Omit<SavedSnapshot, "state" | keyof SnapshotKey>
  ) => {
    const snapshot = snapshotOf(fold)
    if (snapshot === undefined) return Effect.undefined
    return Effect.map(codecOf(fold, snapshot), ({ decode, encode, fingerprint }): Kept<S, Known> => {
      const key: SnapshotKey = { fold: snapshot.name, source, fingerprint }
      const name = JSON.stringify([key.fold, source, fingerprint])
      /** Of what is known here: when it was begun, or, if it goes on from a state that was remembered, when that was. */
      let stamp = freshness?.stamp
      const isFresh = () => stamp === undefined || freshness?.isFresh(stamp) !== false
      return {
        key,
        remembered: () => {
          const held = states.get(name)
          if (held === undefined) return undefined
          states.delete(name)
          if (held.stamp !== undefined && freshness?.isFresh(held.stamp) === false) return undefined
          states.set(name, held)
          stamp = held.stamp
          return held.known as Known // under its key alone
        },
        remember: (known) => {
          const isDue = known.unsaved >= snapshot.every
          const kept = isDue ? { ...known, unsaved: 0 } : known
          if (!isFresh()) return kept
          if (isDue) {
            writer.save(name, {
              ...key,
              ...standsAt(known),
              encode: () =>
                isFresh()
                  ? Result.mapError(encode(known.state), told)
                  : Result.fail(new Error("it is not to be kept any more"))
            })
          }
          states.delete(name)
          states.set(name, { known: kept, stamp })
          for (const oldest of states.keys()) {
            if (states.size <= capacity) break
            states.delete(oldest)
          }
          return kept
        },
        stateOf: (stored) => {
          const state = decode(stored.state)
          if (Result.isSuccess(state)) return { state: state.success as S } // as the codec says
          writer.unusable(key, told(state.failure))
          return undefined
        }
      }
    })
  }
})

/**
 * States to JSON text, and back.
 *
 * @internal
 */
export const stateCodec = <S>(schema: Schema.Codec<S, unknown>) => {
  const codec = Schema.toCodecJson(schema)
  const encode = Schema.encodeUnknownResult(codec)
  const decode = Schema.decodeUnknownResult(codec)
  return {
    encode: (state: unknown): Result.Result<string, unknown> =>
      attempt(() =>
        Result.flatMap(encode(state), (json) => {
          const text = JSON.stringify(json)
          return text.length <= maximumLength
            ? Result.succeed(text)
            : Result.fail(new Error(`its JSON has more than ${maximumLength} characters`))
        })
      ),
    decode: (text: string): Result.Result<S, unknown> => attempt(() => decode(JSON.parse(text)))
  }
}

const makeCodec = <S>(fold: Fold<S, never>, { schema, version }: Snapshot<S>): Effect.Effect<Codec> => {
  const { decode, encode } = stateCodec(schema)
  const ways = attempt(() =>
    Result.succeed(JSON.stringify([
      version,
      Schema.toRepresentation(Schema.toCodecJson(schema)),
      typesOf(fold) ?? [],
      Result.getOrUndefined(encode(fold.initial)) ?? ""
    ]))
  )
  return Effect.map(
    digest(Result.getOrElse(ways, () => String(version))),
    (fingerprint) => ({ encode, decode, fingerprint })
  )
}

/** SHA-256, in hexadecimal, of 32 digits: nobody finds two sources that have one. */
export const digest = (text: string): Effect.Effect<string> =>
  Effect.map(
    Effect.promise(() => globalThis.crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))),
    (hash) => Array.from(new Uint8Array(hash, 0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("")
  )
