/** Finds the personal fields of stored messages. */
import type { Schema } from "effect"
import { eachElement, eachField, type PersonalPlace, type PersonalPlaces } from "../internal/personalPaths.ts"
import { isWritten } from "../Personal.ts"

/** What has a value in it: an object, or an array. */
type Container = Record<string | number, Schema.Json>

/** A value at the place of a personal field. */
export interface Field {
  /** What it is in, and by which name or index: to be replaced there. */
  readonly container: Container
  readonly key: string | number
  readonly value: Schema.Json
  /** The way to it: JSON text of an array, without spaces. Part of what an encrypted value is bound to. */
  readonly path: string
  /** Whether what is not personal may stand there too. */
  readonly isShared: boolean
  /** Undefined: the message does not say. */
  readonly subject: string | undefined
}

/** The values at the places of the personal fields of a message. Absent ones, and null, are none. */
export const fieldsOf = (places: PersonalPlaces, data: Schema.Json): ReadonlyArray<Field> => {
  if (!isContainer(data)) return none
  const type = data[places.typeField]
  const ofType = typeof type === "string" ? places.byType.get(type) : undefined
  if (ofType === undefined) return none
  const found: Array<Field> = []
  for (const place of ofType) follow(place, [data], [], found)
  return found
}

/**
 * Whether a message, as it is read, has a value that is stored as it is: before the field was personal, or by somebody who
 * encrypts nothing.
 */
export const hasPlain = (places: PersonalPlaces | undefined, data: Schema.Json): boolean =>
  places !== undefined && fieldsOf(places, data).some(({ isShared, value }) => !isShared && !isWritten(value))

const none: ReadonlyArray<never> = []

const isContainer = (value: Schema.Json | undefined): value is Container & Schema.Json =>
  typeof value === "object" && value !== null

/** `values` are those on the way, the message first; `keys` are the steps that were taken. */
const follow = (
  place: PersonalPlace,
  values: ReadonlyArray<Container>,
  keys: ReadonlyArray<string | number>,
  found: Array<Field>
): void => {
  const container = values[keys.length]
  const step = place.path[keys.length]
  if (container === undefined || step === undefined) return
  const isArray = Array.isArray(container)
  if (isArray !== (step === eachElement)) return
  const next = step === eachElement || step === eachField ? Object.keys(container) : [step]
  for (const name of next) {
    if (typeof name !== "string" || !Object.hasOwn(container, name)) continue
    const key = isArray ? Number(name) : name
    const value = container[key]
    if (value === undefined || value === null) continue
    const taken = [...keys, key]
    if (taken.length < place.path.length) {
      if (isContainer(value)) follow(place, [...values, value], taken, found)
      continue
    }
    found.push({
      container,
      key,
      value,
      path: JSON.stringify(taken),
      isShared: place.isShared,
      subject: subjectOf(place, values)
    })
  }
}

const subjectOf = (
  { subject: { depth, name } }: PersonalPlace,
  values: ReadonlyArray<Container>
): string | undefined => {
  const object = values[depth]
  const value = object !== undefined && Object.hasOwn(object, name) ? object[name] : undefined
  if (typeof value === "number") return String(value)
  return typeof value === "string" && value !== "" ? value : undefined
}
