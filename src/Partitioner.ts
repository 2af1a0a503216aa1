/**
 * Which partition of an aggregated stream a message belongs to.
 *
 * The partitioners made here run inside the database: no message leaves it. Any function of the stored message is a
 * partitioner as well; it runs in the application. A partition is a whole number from 0 to 2147483647.
 */
import { Effect } from "effect"
import type { Pipeable, Schema } from "effect"
import type { StoredMessage } from "./Message.ts"
import type { Personal } from "./Personal.ts"

/** The names on the way to a field of nested objects. */
export type Path = ReadonlyArray<string>

/** By the name of the stream. */
export interface StreamName {
  readonly _tag: "StreamName"
  readonly count: number
}

/** By depeche_db's hash of the name of the stream. */
export interface Depeche {
  readonly _tag: "Depeche"
}

/** By a field of the stored JSON. */
export interface Field<out P extends Path = Path> {
  readonly _tag: "Field"
  readonly path: P
  readonly count: number
}

/** One partition for all messages. */
export interface Constant {
  readonly _tag: "Constant"
  readonly partition: number
}

/** A partitioner that every backend knows. */
export type BuiltIn<P extends Path = Path> =
  | StreamName
  | Depeche
  | Field<P>
  | Constant

/** The paths of messages of this encoded form, nested four deep; of a form that is not known, any. */
export type FieldPath<Encoded, Depth extends ReadonlyArray<unknown> = []> = unknown extends Encoded ? Path
  : Encoded extends ReadonlyArray<unknown> | Date | Pipeable.Pipeable ? never
  : Encoded extends object ? Depth["length"] extends 4 ? Path
    : {
      [Name in keyof Encoded & string]: IsPersonal<Encoded[Name]> extends true ? never
        :
          | readonly [Name]
          | readonly [Name, ...FieldPath<Encoded[Name], [...Depth, Name]>]
    }[keyof Encoded & string]
  : never

/** What is encrypted anew each time that it is written says nothing of a message: it is no field to partition by. */
type IsPersonal<Encoded> = true extends (Encoded extends Personal<unknown> ? true : false) ? true : false

/**
 * A built-in one, by a path that the messages have, or a function. A function has to be total and deterministic: the same
 * partition for the same message, always. When it changes, the stream has to be rebuilt. The change itself is not noticed:
 * nothing fails, and messages that were linked by the old function stay where they are.
 */
export type Partitioner<A, P extends Path = Path> =
  | BuiltIn<P>
  | ((stored: StoredMessage<A>) => number)

/** Spreads streams over `count` partitions (1 to 2147483647), numbered from 0, by a hash of their names. */
export const streamName = (count: number): StreamName => ({ _tag: "StreamName", count })

/** What depeche_db's `StreamNamePartitioner` does: a hash of the stream's name, from 0 to 65535. */
export const depeche: Depeche = { _tag: "Depeche" }

/**
 * Spreads messages over `count` partitions (1 to 2147483647), numbered from 0, by a hash of a field of their stored
 * JSON: a name, or the names on the way to a field of nested objects. A name must not be empty or begin with a digit, as
 * if it were the index of an array. Where the store has a schema, a field that none of its messages has does not compile.
 *
 * **Details**
 *
 * Strings, booleans and whole numbers count by their text. Whatever else is found there (nothing, null, an object, an
 * array, a fraction, a number beyond 2^53) counts as the empty string. NUL and halves of surrogate pairs, which Python can
 * write, count as U+FFFD.
 *
 * **Example**
 *
 * ```ts
 * Partitioner.field("customerId", 16)
 * Partitioner.field(["address", "country"], 16)
 * ```
 */
export const field = <const P extends string | Path>(
  path: P,
  count: number
): Field<P extends Path ? P : readonly [P & string]> => ({
  _tag: "Field",
  path: (typeof path === "string" ? [path] : path) as never, // what the return type says
  count
})

/** One partition for all: a single order of all messages, handled by one consumer at a time. */
export const constant = (partition = 0): Constant => ({ _tag: "Constant", partition })

/**
 * The partition, as a backend without SQL computes it: the first four bytes of the key's SHA-256, big-endian, modulo the count;
 * for depeche_db the first two, little-endian.
 *
 * @internal
 */
export const partitionOf = (
  partitioner: BuiltIn,
  message: { readonly stream: string; readonly data: Schema.Json }
): Effect.Effect<number> => {
  switch (partitioner._tag) {
    case "Constant":
      return Effect.succeed(partitioner.partition)
    case "StreamName":
      return Effect.map(sha256(message.stream), (hash) => hash.getUint32(0) % partitioner.count)
    case "Depeche":
      return Effect.map(sha256(message.stream), (hash) => hash.getUint16(0, true))
    case "Field":
      return Effect.map(
        sha256(keyOf(message.data, partitioner.path)),
        (hash) => hash.getUint32(0) % partitioner.count
      )
  }
}

const sha256 = (text: string): Effect.Effect<DataView> =>
  Effect.map(
    Effect.promise(() => globalThis.crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))),
    (hash) => new DataView(hash)
  )

const keyOf = (data: Schema.Json, path: ReadonlyArray<string>): string => {
  let value: unknown = data
  for (const name of path) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) return ""
    value = (value as Schema.JsonObject)[name]
  }
  if (typeof value === "string") return value.replaceAll("\0", "\ufffd") // UTF-8 replaces halves of pairs itself
  return typeof value === "boolean" || Number.isSafeInteger(value) ? String(value) : ""
}
