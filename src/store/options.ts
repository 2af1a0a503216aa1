/** What a store is told of its messages. */
import type { Identified } from "../Message.ts"
import type { MessageSchema, MessageSerializer, SchemaSerializerOptions } from "../Serializer.ts"
import type { Accessors } from "./encode.ts"

/** What the messages are: those of a schema, or of a serializer written by hand. */
export type MessageOptions<A, Encoded = unknown> =
  | (SchemaSerializerOptions & {
    readonly schema: MessageSchema & { readonly Type: A; readonly Encoded: Encoded }
    readonly serializer?: undefined
  })
  | { readonly serializer: MessageSerializer<A>; readonly schema?: undefined }

/** Messages that carry `Message.fields` need not say where their id and time are; all others must. */
export type AccessorOptions<A> = [A] extends [Identified] ? Partial<Accessors<A>> : Accessors<A>
