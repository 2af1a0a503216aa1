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

/** `depth` is that of causes: an error may be its own cause. */
export const toFailure = (error: unknown, depth = 0): Failure => {
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
  for (const [key, value] of entriesOf(error)) {
    if (notFields.has(key)) continue
    const json = toJson(value, 0)
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

/** Values that JSON does not have become text: a bigint, a date, an instance. Undefined for a function or a symbol. */
const toJson = (value: unknown, depth: number): Schema.Json | undefined => {
  switch (typeof value) {
    case "string":
      return text(value)
    case "boolean":
      return value
    case "number":
      return Number.isFinite(value) ? value : String(value)
    case "bigint":
      return text(String(value))
    case "object":
      break
    default:
      return undefined
  }
  if (value === null) return null
  if (depth >= maximumDepth) return "…"
  if (Array.isArray(value)) return value.slice(0, maximumFields).map((each) => toJson(each, depth + 1) ?? null)
  if (Predicate.hasProperty(value, "toJSON") && typeof value.toJSON === "function") {
    try {
      return toJson(value.toJSON(), depth + 1)
    } catch {
      return "…"
    }
  }
  return Object.fromEntries(
    entriesOf(value).flatMap(([key, each]) => {
      const json = toJson(each, depth + 1)
      return json === undefined ? [] : [[text(key), json]]
    })
  )
}
