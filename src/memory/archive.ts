/** Messages in memory, out and in as they are stored. */
import { Array as Arr, DateTime, Effect, Result } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { parseTimeText, timeText } from "../internal/timeText.ts"
import type { AppendItem } from "../Storage.ts"
import {
  type ArchivedMessage,
  type ArchiveStorage,
  type ExportedMessage,
  type ExportRange,
  ImportOutcome,
  Refusal
} from "../storage/archive.ts"
import { joining } from "../storage/joining.ts"
import { type Change, type Messages, type Row, rowAt, type View, viewOf } from "./messages.ts"
import { cut } from "./pages.ts"

/** What an archive needs of the messages of its store. */
export interface Source {
  readonly messages: Messages
  readonly currentView: Effect.Effect<View, SqlError>
  /** With the locks of these items, and the items with all their tags. */
  readonly locked: <A>(
    items: Arr.NonEmptyReadonlyArray<AppendItem>,
    use: (items: ReadonlyArray<AppendItem>, changes: Array<Change>) => A
  ) => Effect.Effect<A, SqlError>
  readonly wake: Effect.Effect<void>
}

export const make = ({ currentView, locked, messages, wake }: Source): ArchiveStorage => {
  const rowsOf = (view: View, { pattern, toPosition, toVersion }: ExportRange, fromPosition = 0): ReadonlyArray<Row> =>
    messages.pattern(view, { pattern, fromPosition, toPosition, direction: "forward", limit: Infinity })
      .filter(({ version }) => version <= toVersion)

  return {
    lastPosition: (before) =>
      Effect.map(currentView, (view) => {
        const rows = rowsOf(view, { pattern: "%", toPosition: Infinity, toVersion: Infinity })
        const end = before === undefined ?
          -1 :
          rows.findIndex(({ addedAt }) => DateTime.isGreaterThanOrEqualTo(addedAt, before))
        return (end < 0 ? rows.at(-1) : rows[end - 1])?.globalPosition ?? 0
      }),
    countStored: (range) =>
      Effect.map(currentView, (view) => {
        const rows = rowsOf(view, range)
        return {
          messages: rows.length,
          streams: new Set(rows.map(({ stream }) => stream)).size,
          firstPosition: rows[0]?.globalPosition ?? 0,
          lastPosition: rows.at(-1)?.globalPosition ?? 0
        }
      }),
    readStored: ({ fromPosition, limit, ...range }) =>
      Effect.map(currentView, (view) => {
        const { more, rows } = cut(rowsOf(view, range, fromPosition), limit)
        return { messages: rows.map(toExported), more }
      }),
    importStored: (given) =>
      Effect.fromResult(checkJson(given)).pipe(
        Effect.andThen(locked(Arr.map(given, toItem), (items, changes): ImportOutcome => {
          const view = viewOf(changes)
          const versionsOf = (stream: string) => {
            const rows = messages.stream(view, stream)
            return { first: rows[0]?.version ?? 0, last: rows.at(-1)?.version ?? 0 }
          }
          const missing = joining(
            given,
            versionsOf,
            ({ stream, version }) => rowAt(messages.stream(view, stream), version)?.messageId
          )
          if (Result.isFailure(missing)) return ImportOutcome.Refused(missing.failure)
          const wanted = new Set(missing.success)
          for (const [index, message] of given.entries()) {
            const [place] = wanted.has(message) ? messages.ids(view, [message.messageId]) : []
            if (place !== undefined) return ImportOutcome.Refused({ index, refusal: Refusal.Elsewhere(place) })
          }
          messages.join(changes, given.flatMap((message, i) => wanted.has(message) ? [toRow(message, items[i])] : []))
          return ImportOutcome.Imported({ messages: given.length, skipped: given.length - wanted.size })
        })),
        Effect.tap(wake)
      )
  }
}

/** What the database sees to. */
const checkJson = (messages: ReadonlyArray<ArchivedMessage>): Result.Result<void, SqlError> => {
  try {
    for (const { data, metadata } of messages) {
      JSON.parse(data)
      JSON.parse(metadata)
    }
    return Result.void
  } catch (cause) {
    return Result.fail(new SqlError({ reason: new UnknownError({ cause, message: "no JSON", operation: "import" }) }))
  }
}

const toExported = (row: Row): ExportedMessage => ({
  stream: row.stream,
  version: row.version,
  messageId: row.messageId,
  globalPosition: row.globalPosition,
  addedAt: timeText(row.addedAt),
  occurredAt: timeText(row.occurredAt),
  metadata: row.metadata,
  data: row.data,
  oversize: undefined
})

const occurred = ({ addedAt, occurredAt = addedAt }: ArchivedMessage): DateTime.Utc => parseTimeText(occurredAt)

const toItem = (message: ArchivedMessage): AppendItem => ({
  stream: message.stream,
  expectedVersion: undefined,
  messages: [{ messageId: message.messageId, occurredAt: occurred(message), data: message.data }],
  metadata: message.metadata
})

const toRow = (message: ArchivedMessage, item: AppendItem | undefined) => ({
  stream: message.stream,
  version: message.version,
  messageId: message.messageId,
  addedAt: parseTimeText(message.addedAt),
  occurredAt: occurred(message),
  data: message.data,
  metadata: message.metadata === "null" ? "{}" : message.metadata,
  size: message.data.length + message.metadata.length,
  tagged: item?.messages[0]?.tagged
})
