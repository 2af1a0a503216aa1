/** Messages of a store as the text of an archive. */
import { Clock, DateTime, Effect, Option, Result, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, SerializationError } from "../errors.ts"
import { checkPattern, checkTime, checkWhole, maximumVersion, outsideTransaction } from "../internal/checks.ts"
import type { Snapshot, Storage } from "../Storage.ts"
import type { ExportedMessage, ExportQuery } from "../storage/archive.ts"
import * as Format from "./format.ts"

/** Which messages an archive is of. */
export interface ExportOptions {
  /** Of the names of streams, as LIKE has it: `%` any run of characters, `_` any one. Default `"%"`: all. */
  readonly pattern?: string | undefined
  /** The highest version of each stream; 1 or more. Default: all. */
  readonly toVersion?: number | undefined
  /**
   * What stands in the store before the first message that was added at this time or later, whatever stream that is of. Default:
   * all.
   */
  readonly before?: DateTime.DateTime | undefined
}

/** Why an export may fail: a bad option, an open transaction, a message that is too large to be read, the database. */
export type ExportError = InvalidArgumentError | SerializationError | SqlError

/** @internal */
export const make = (storage: Storage["Service"], store: string) =>
(
  options: ExportOptions = {}
): Stream.Stream<string, ExportError> =>
  Stream.unwrap(Effect.gen(function*() {
    yield* outsideTransaction(storage, "export")
    const given = yield* Effect.fromResult(check(options))
    const within = yield* storage.snapshot
    const toPosition = yield* within(storage.lastPosition(given.before))
    const range = { pattern: given.pattern, toVersion: given.toVersion, toPosition }
    const { firstPosition, lastPosition, messages, streams } = yield* within(storage.countStored(range))
    const manifest: Format.Manifest = {
      format: 1,
      store,
      pattern: given.pattern,
      ...options.toVersion === undefined ? {} : { toVersion: given.toVersion },
      ...options.before === undefined ? {} : { toGlobalPosition: toPosition },
      messages,
      streams,
      firstGlobalPosition: firstPosition,
      lastGlobalPosition: lastPosition,
      exportedAt: DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis))
    }
    return blocks(storage, within, { ...range, toPosition: lastPosition }, manifest)
  }))

/** Each page of messages with its check. The next one is read while this one is hashed and consumed. */
const blocks = (
  storage: Storage["Service"],
  within: Snapshot,
  range: Omit<ExportQuery, "fromPosition" | "limit">,
  manifest: Format.Manifest
): Stream.Stream<string, SerializationError | SqlError> =>
  Stream.paginate(manifest.firstGlobalPosition, (fromPosition) =>
    Effect.map(
      within(storage.readStored({ ...range, fromPosition, limit: Format.messagesAtATime })),
      ({ messages, more }) => {
        const last = more ? messages.at(-1) : undefined
        const next = last === undefined ? Option.none<number>() : Option.some(last.globalPosition + 1)
        return [[{ messages, isLast: Option.isNone(next) }], next] as const
      }
    )).pipe(
      Stream.buffer({ capacity: 1 }),
      Stream.mapAccumEffect(
        () => ({ hash: "", text: Format.manifestLine(manifest), messages: 0 }),
        Effect.fnUntraced(function*(state, { isLast, messages }) {
          const count = state.messages + messages.length
          const text = state.text + (yield* Effect.fromResult(toLines(messages)))
          const start = Format.checkStart(isLast ? "end" : "check", count)
          const hash = yield* Format.hashOf(state.hash, text + start)
          return [{ hash, text: "", messages: count }, [text + Format.checkLine(start, hash)]] as const
        })
      )
    )

const toLines = (messages: ReadonlyArray<ExportedMessage>): Result.Result<string, SerializationError> => {
  let lines = ""
  for (const message of messages) {
    const { messageId, oversize, stream, version } = message
    if (oversize !== undefined) {
      const reason =
        `it has ${oversize} bytes as the database prints it, more than the client reads at once (maxMessageSize)`
      return Result.fail(new SerializationError({ operation: "deserialize", reason, stream, version, messageId }))
    }
    lines += Format.messageLine(message)
  }
  return Result.succeed(lines)
}

const check = ({ before, pattern = "%", toVersion = maximumVersion }: ExportOptions) =>
  Result.gen(function*() {
    return {
      pattern: yield* checkPattern(pattern),
      toVersion: yield* checkWhole("toVersion", toVersion, 1, maximumVersion),
      before: before === undefined ? undefined : yield* checkTime(before, "before")
    }
  })
