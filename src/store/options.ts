/** What a store is told of its messages. */
import { Effect } from "effect"
import type { KeyEncryption } from "../KeyEncryption.ts"
import type { Identified } from "../Message.ts"
import {
  compile,
  fromSchema,
  makeCodec,
  type MessageCodec,
  type MessageSchema,
  type MessageSerializer,
  type SchemaSerializerOptions,
  verified
} from "../Serializer.ts"
import type { Accessors } from "./encode.ts"
import type { PersonalOptions } from "./forget.ts"

/** What the messages are: those of a schema, or of a serializer written by hand. */
export type MessageOptions<A, Encoded = unknown, R extends KeyEncryption = KeyEncryption> =
  | (SchemaSerializerOptions & {
    readonly schema: MessageSchema<R> & { readonly Type: A; readonly Encoded: Encoded }
    readonly serializer?: undefined
    /**
     * Whether the schema is compiled when a layer of the store is built, for faster reads and writes (see `Serializer.compile`); in
     * memory it never is. Default `true`. Where that is not allowed, it is interpreted as with `false`.
     */
    readonly compile?: boolean | undefined
  })
  | { readonly serializer: MessageSerializer<A>; readonly schema?: undefined; readonly compile?: undefined }

/**
 * What encodes and decodes the messages, and what has to be done before it is as fast as it can be.
 *
 * @internal
 */
export const codecOf = <A, Encoded, R extends KeyEncryption>(
  options: MessageOptions<A, Encoded, R>
): { readonly codec: MessageCodec<A>; readonly compiled: Effect.Effect<void> } =>
  options.schema === undefined
    ? { codec: makeCodec(verified(options.serializer)), compiled: Effect.void }
    : {
      codec: makeCodec<A>(fromSchema(options.schema, options)),
      compiled: options.compile === false ? Effect.void : compile(options.schema)
    }

/** Messages that carry `Message.fields` need not say where their id and time are; all others must. */
export type AccessorOptions<A> = [A] extends [Identified] ? Partial<Accessors<A>> : Accessors<A>

/** What a store is called, and how it writes. */
export interface StoreOptions<in out A = never> {
  /** Part of the names of the database objects: 1 to 39 of `a-z`, `0-9` and `_`, not beginning with a digit. */
  readonly name: string
  /**
   * The type of the message column, should `layer` have to create the table: `"json"` (default) is faster,
   * `"jsonb"` can be indexed and queried by content. A table that exists keeps what it has.
   */
  readonly payload?: "json" | "jsonb" | undefined
  /**
   * Whether the writes of concurrent fibers leave together, in one statement (default), or each in its own; so do the questions
   * of decisions where their sources end. Inside a transaction each is its own in any case. PostgreSQL only.
   */
  readonly coalesce?: boolean | undefined
  /**
   * How many states of folds with snapshots a process remembers, so that a decision on the same thing begins with the last one
   * and reads nothing: a whole number, 0 or more; 0: none. Beyond it the one that was used least recently is forgotten.
   * Default 1000.
   */
  readonly cachedStates?: number | undefined
  /** How it deals with personal fields (`Message.personal`), if its schema has some. */
  readonly personal?: PersonalOptions<A> | undefined
}
