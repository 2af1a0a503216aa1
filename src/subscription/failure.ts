/** Errors as JSON of bounded size, which PostgreSQL can hold. */
import { Predicate } from "effect"
import type { Schema } from "effect"
import type { Failure } from "../Storage.ts"

const maximumText = 2000
const maximumFields = 50
const maximumDepth = 4
/** Bounds all fields together, in characters of JSON. */
const maximumSize = 8000

/** Fields that are kept elsewhere, or say nothing. */
const notFields = new Set(["_tag", "name", "message", "cause", "stack"])

/** Text without NUL, well-formed, and of bounded length. */
const text = (value: string): string => value.slice(0, maximumText).replaceAll("\0", "").toWellFormed()

/** `depth` is that of causes: an error may be its own cause. Never throws, whatever an error does when it is read. */
export const toFailure = (error: unknown, depth = 0): Failure => {
  try {
    return readFailure(error, depth)
  } catch {
    return { tag: typeof error, message: "the error cannot be read" }
  }
}

const readFailure = (error: unknown, depth: number): Failure => {
  if (!Predicate.isObject(error)) {
    return { tag: error === null ? "null" : typeof error, message: text(String(error)) }
  }
  const get = (key: string): unknown => {
    try {
      return Reflect.get(error, key)
    } catch {
      return undefined
    }
  }
  const string = (key: string): string | undefined => {
    const value = get(key)
    return typeof value === "string" && value !== "" ? text(value) : undefined
  }
  const fields = fieldsOf(error)
  const [message, cause, stack] = [string("message"), get("cause"), string("stack")]
  return {
    tag: string("_tag") ?? string("name") ?? "Object",
    message: message ?? (fields === undefined ? "" : text(JSON.stringify(fields))),
    ...fields === undefined ? {} : { fields },
    ...cause === undefined || cause === null || depth >= maximumDepth ? {} : { cause: toFailure(cause, depth + 1) },
    ...stack === undefined ? {} : { stack }
  }
}

const fieldsOf = (error: object): Schema.JsonObject | undefined => {
  const fields: Record<string, Schema.Json> = {}
  let left = maximumSize
  const room = { left: maximumSize }
  for (const [key, value] of entriesOf(error)) {
    if (notFields.has(key)) continue
    const json = toJson(value, 0, room)
    if (json === undefined) continue
    left -= key.length + JSON.stringify(json).length
    if (left < 0) break
    fields[text(key)] = json
  }
  return Object.keys(fields).length === 0 ? undefined : fields
}

/** A getter may throw, and so may a proxy. */
const entriesOf = (value: object): ReadonlyArray<readonly [string, unknown]> => {
  try {
    return Object.entries(value).slice(0, maximumFields)
  } catch {
    return []
  }
}

/** How much of all fields may still be read, in characters of JSON: objects that refer to each other have no end. */
interface Room {
  left: number
}

const toJson = (value: unknown, depth: number, room: Room): Schema.Json | undefined => {
  if (typeof value === "object" && value !== null) {
    if (depth >= maximumDepth || room.left <= 0) return "…"
    room.left -= 2
    try {
      return fromObject(value, depth, room)
    } catch {
      return "…"
    }
  }
  const json = fromPrimitive(value)
  if (json !== undefined) room.left -= JSON.stringify(json).length + 1
  return json
}

const fromObject = (value: object, depth: number, room: Room): Schema.Json | undefined => {
  if (Array.isArray(value)) {
    const items: Array<Schema.Json> = []
    for (const each of value.slice(0, maximumFields)) {
      if (room.left <= 0) break
      items.push(toJson(each, depth + 1, room) ?? null)
    }
    return items
  }
  if (Predicate.hasProperty(value, "toJSON") && typeof value.toJSON === "function") {
    return toJson(value.toJSON(), depth + 1, room)
  }
  const fields: Record<string, Schema.Json> = {}
  for (const [key, each] of entriesOf(value)) {
    if (room.left <= 0) break
    room.left -= key.length + 3
    const json = toJson(each, depth + 1, room)
    if (json !== undefined) fields[text(key)] = json
  }
  return fields
}

/** Values that JSON does not have become text; undefined for a function or a symbol. */
const fromPrimitive = (value: unknown): Schema.Json | undefined => {
  switch (typeof value) {
    case "string":
      return text(value)
    case "boolean":
      return value
    case "number":
      return Number.isFinite(value) ? value : String(value)
    case "bigint":
      return text(String(value))
    default:
      return value === null ? null : undefined
  }
}
