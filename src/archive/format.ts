/**
 * The text of an archive: lines of JSON, each ended by a line feed.
 *
 * - The first line says what the archive is of: `{"archive":{…}}`, a {@link Manifest}.
 * - A message is a line, with what it is in the store around it: `{"stream":…,…,"metadata":…,"data":…}`. The JSON of metadata and
 *   data is that of the store, but for line breaks between its values, which are spaces here: numbers keep their digits.
 * - Behind at most 1000 messages comes a line `{"check":{"messages":…},"sha256":"…"}`, and behind the last one, in its
 *   place, `{"end":{"messages":…},"sha256":"…"}`, where nothing follows. Both say how many messages came before. The SHA-256 is that
 *   of the one before (in hexadecimal digits; empty before the first), of all lines since, the line feeds included, and of the
 *   beginning of its own line, up to `,"sha256"`.
 *
 * So whoever reads it never takes a message for good before it is known to be what was written.
 */
import { Effect, Result, Schema } from "effect"
import { checkStreamName, maximumVersion } from "../internal/checks.ts"
import type { ArchivedMessage } from "../storage/archive.ts"

/** What an archive is of. */
export const Manifest = Schema.Struct({
  /** Of the text. */
  format: Schema.Literal(1),
  /** The name of the store. */
  store: Schema.String,
  /** Of the names of streams, as LIKE has it. */
  pattern: Schema.String,
  /** The highest version that was taken of each stream, and the highest global position. Absent: all. */
  toVersion: Schema.optionalKey(Schema.Natural),
  toGlobalPosition: Schema.optionalKey(Schema.Natural),
  /** How many messages there are, and of how many streams. */
  messages: Schema.Natural,
  streams: Schema.Natural,
  /** Their global positions in the store; 0: there are none. */
  firstGlobalPosition: Schema.Natural,
  lastGlobalPosition: Schema.Natural,
  exportedAt: Schema.String
})

/** What an archive is of. */
export type Manifest = typeof Manifest.Type

/** How many messages there may be before a check. */
export const messagesAtATime = 1000

/** How many characters of lines there may be before a check: some megabytes, and a message that a driver reads at once. */
export const mostText = 64 * 1024 * 1024

export const manifestLine = (manifest: Manifest): string => `{"archive":${JSON.stringify(manifest)}}\n`

export const messageLine = (message: ArchivedMessage): string => {
  const { addedAt, data, globalPosition, messageId, metadata, occurredAt, stream, version } = message
  const occurred = occurredAt === undefined ? "" : `,"occurredAt":"${occurredAt}"`
  return `{"stream":${
    JSON.stringify(stream)
  },"version":${version},"messageId":"${messageId}","globalPosition":${globalPosition}` +
    `,"addedAt":"${addedAt}"${occurred},"metadata":${onOneLine(metadata)},"data":${onOneLine(data)}}\n`
}

/** A line break in JSON stands between values: in strings it is escaped. */
const onOneLine = (json: string): string => /[\n\r]/.test(json) ? json.replaceAll(/[\n\r]/g, " ") : json

/** A check, or the end, without its hash. */
export const checkStart = (kind: "check" | "end", messages: number): string => `{"${kind}":{"messages":${messages}}`

export const checkLine = (start: string, sha256: string): string => `${start},"sha256":"${sha256}"}\n`

/** Of a line that is a check or the end. */
export interface Check {
  readonly kind: "check" | "end"
  /** Without its hash. */
  readonly start: string
  readonly messages: number
  readonly sha256: string
}

export const parseCheck = (line: string): Check | undefined => {
  const [, start = "", kind = "", messages = "", sha256 = ""] =
    /^(\{"(check|end)":\{"messages":(\d{1,15})\}),"sha256":"([0-9a-f]{64})"\}$/.exec(line) ?? []
  return start === "" ? undefined : { kind: kind as Check["kind"], start, messages: Number(messages), sha256 }
}

/** The hash of a check: of the one before, and of the text since. */
export const hashOf = (before: string, text: string): Effect.Effect<string> =>
  Effect.map(
    Effect.promise(() => globalThis.crypto.subtle.digest("SHA-256", new TextEncoder().encode(before + text))),
    (hash) => Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("")
  )

/** Or why a line does not say it, as what is said of the line. */
export const parseManifest = (line: string): Result.Result<Manifest, string> => {
  const parsed = parse(line)
  if (typeof parsed !== "object" || parsed === null || !("archive" in parsed)) {
    return Result.fail("does not begin an archive")
  }
  const manifest = decodeManifest(parsed.archive)
  return Result.isSuccess(manifest)
    ? Result.succeed(manifest.success)
    : Result.fail("begins an archive of another format, or of a later version of this library")
}

const decodeManifest = Schema.decodeUnknownResult(Manifest)

/** Or why a line is no message, as what is said of the line. */
export const parseMessage = (line: string): Result.Result<ArchivedMessage, string> => {
  const metadataAt = line.indexOf(metadataKey) // in a string, a quote is escaped
  const head = metadataAt < 0 ? undefined : parse(`${line.slice(0, metadataAt)}}`)
  const metadataEnd = metadataAt < 0 ? -1 : endOfValue(line, metadataAt + metadataKey.length)
  if (!isHead(head) || !line.startsWith(dataKey, metadataEnd) || !line.endsWith("}")) {
    return Result.fail("is no message")
  }
  return Result.succeed({
    stream: head.stream,
    version: head.version,
    messageId: head.messageId,
    globalPosition: head.globalPosition,
    addedAt: head.addedAt,
    occurredAt: head.occurredAt,
    metadata: line.slice(metadataAt + metadataKey.length, metadataEnd),
    data: line.slice(metadataEnd + dataKey.length, -1)
  })
}

const metadataKey = ",\"metadata\":"
const dataKey = ",\"data\":"

type Head = Omit<ArchivedMessage, "metadata" | "data">

const isHead = (head: unknown): head is Head => {
  if (typeof head !== "object" || head === null) return false
  const { addedAt, globalPosition, messageId, occurredAt, stream, version } = head as { [Key in keyof Head]?: unknown }
  return typeof stream === "string" && Result.isSuccess(checkStreamName(stream)) &&
    isWhole(version) && version <= maximumVersion && isWhole(globalPosition) &&
    typeof messageId === "string" && id.test(messageId) &&
    isTime(addedAt) && (occurredAt === undefined || isTime(occurredAt))
}

const isWhole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0

const id = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const isTime = (value: unknown): boolean => typeof value === "string" && time.test(value)

const time = /^\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z(?: BC)?$/

/** Behind the value of JSON that begins here. */
const endOfValue = (text: string, from: number): number => {
  let open = 0
  for (let at = from; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22 /* " */) {
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) {
        if (text.charCodeAt(at) === 0x5c /* \ */) at++
      }
    } else if (code === 0x7b || code === 0x5b /* { [ */) open++
    else if (code === 0x7d || code === 0x5d /* } ] */) open--
    else if (code === 0x2c /* , */ && open === 0) return at
  }
  return -1
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
