/** Messages as operators see them: as they are stored, without the application's schemas. */
import { Predicate } from "effect"
import type { DateTime, Schema } from "effect"
import type { MessagePosition, Metadata } from "../Message.ts"
import type { EncodedStoredMessage } from "../Storage.ts"

/** A message as it is stored. */
export interface Message extends MessagePosition {
  readonly messageId: string
  readonly addedAt: DateTime.Utc
  /** What its type is called in its JSON; undefined if nothing there says so. */
  readonly type: string | undefined
  /** Null of a message that is too large to be read. */
  readonly data: Schema.Json
  readonly metadata: Metadata
  /** Of a message that is too large to be read, its size in bytes. */
  readonly oversize: number | undefined
}

/** Fields that name the type of a message: of this library, and of depeche_db. */
const typeFields = ["_tag", "__typename__", "type"]

/** The type that stored data names. */
export type TypeOf = (data: Schema.Json) => string | undefined

export const typeOfField = (typeField: string | undefined): TypeOf => {
  const fields = typeField === undefined ? typeFields : [typeField]
  return (data) => {
    if (!Predicate.isObject(data)) return undefined
    for (const field of fields) {
      const type: unknown = Object.hasOwn(data, field) ? Reflect.get(data, field) : undefined
      if (typeof type === "string") return type
    }
    return undefined
  }
}

export const toMessage = (typeOf: TypeOf) => (stored: EncodedStoredMessage): Message => ({
  messageId: stored.messageId,
  stream: stored.stream,
  version: stored.version,
  globalPosition: stored.globalPosition,
  addedAt: stored.addedAt,
  type: typeOf(stored.data),
  data: stored.data,
  metadata: stored.metadata,
  oversize: stored.oversize
})
