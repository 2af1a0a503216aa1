/** Decodes and encodes times: `Schema.DateTimeUtc` as it is stored, in ISO text. Interpreted, it is half of what a message costs. */
import { DateTime, Option, Schema, SchemaAST } from "effect"
import type { Decode } from "effect/schema/SchemaCompiler"

/** Of a node that is such a time, or its encoding side, without checks; undefined: it is none. */
export const decoderOf = (ast: SchemaAST.AST, invalid: symbol): Decode | undefined => {
  const [link, ...others] = ast.encoding ?? []
  if (link?.transformation._tag !== "Transformation" || others.length > 0) return undefined
  const { decode } = link.transformation
  if (link.to.encoding !== undefined) return undefined
  if (decode === stored?.decode && isUtc(ast) && isText(link.to)) return (input) => decodeTime(input) ?? invalid
  if (decode === stored?.encode && isUtc(link.to) && isText(ast)) return (input) => encodeTime(input) ?? invalid
  return undefined
}

/** How Effect stores it: one object for all that are declared so. */
const stored = ((): { readonly decode: unknown; readonly encode: unknown } | undefined => {
  const transformation = Schema.toCodecJson(Schema.DateTimeUtc).ast.encoding?.[0]?.transformation
  return transformation?._tag === "Transformation" ? transformation : undefined
})()

const isUtc = (ast: SchemaAST.AST): boolean =>
  SchemaAST.isDeclaration(ast) && ast.run === check && (ast.encodingRun ?? check) === check &&
  ast.checks === undefined &&
  ast.encodingChecks === undefined

const check = Schema.DateTimeUtc.ast.run

const isText = (ast: SchemaAST.AST): boolean => SchemaAST.isString(ast) && ast.checks === undefined

const decodeTime = (input: unknown): DateTime.Utc | undefined => {
  if (typeof input !== "string") return undefined
  const milliseconds = iso.test(input) ? millisecondsOf(input) : NaN
  // The cheapest way to a time of which the milliseconds are known to be a number.
  if (!Number.isNaN(milliseconds)) return DateTime.mapEpochMillis(epoch, () => milliseconds)
  const time = DateTime.make(input)
  return Option.isSome(time) ? DateTime.toUtc(time.value) : undefined
}

const encodeTime = (input: unknown): string | undefined =>
  DateTime.isDateTime(input) && DateTime.isUtc(input) ? isoOf(input) : undefined

const epoch = DateTime.makeUnsafe(0)

/** What `DateTime.formatIso` writes of the years up to 9999, of hours and minutes that there are. */
const iso = /^\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z$/

const day = 24 * 60 * 60 * 1000
const lastTime = 8.64e15 // of a `Date`

// Messages that are read or written together are mostly of one day: that part of their times is worked out once.
let decodedDay = ""
let dayBegins = NaN
let encodedDay = NaN
let dayText = ""

/** NaN if there is no such day. */
const millisecondsOf = (text: string): number => {
  if (!text.startsWith(decodedDay) || decodedDay === "") {
    decodedDay = text.slice(0, 10)
    dayBegins = Date.parse(decodedDay)
  }
  const digit = (at: number) => text.charCodeAt(at) - 48
  const two = (at: number) => 10 * digit(at) + digit(at + 1)
  return dayBegins + ((two(11) * 60 + two(14)) * 60 + two(17)) * 1000 + 10 * two(20) + digit(22)
}

/** What `DateTime.formatIso` makes of it. */
const isoOf = (time: DateTime.Utc): string => {
  const milliseconds = DateTime.toEpochMillis(time)
  if (!Number.isInteger(milliseconds) || Math.abs(milliseconds) >= lastTime) return DateTime.formatIso(time)
  const begins = Math.floor(milliseconds / day)
  if (begins !== encodedDay) {
    dayText = DateTime.formatIso(time).slice(0, -13)
    encodedDay = begins
  }
  const rest = milliseconds - begins * day
  const seconds = Math.floor(rest / 1000)
  const minutes = Math.floor(seconds / 60)
  return `${dayText}${twoDigits(Math.floor(minutes / 60))}:${twoDigits(minutes % 60)}:${twoDigits(seconds % 60)}.${
    threeDigits(rest % 1000)
  }Z`
}

const twoDigits = (value: number): string => value < 10 ? `0${value}` : `${value}`
const threeDigits = (value: number): string => value < 100 ? `0${twoDigits(value)}` : `${value}`
