/** Messages that are to be written later. */
import { DateTime, Effect, Option, Result } from "effect"
import type { Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkTime } from "../internal/checks.ts"
import type { Metadata } from "../Message.ts"
import type { ScheduleStorage } from "../Storage.ts"
import type { TypeOf } from "./messages.ts"
import { checkLimit, type Page, type PageOptions, partsCursor } from "./page.ts"

/** A message that is to be written later, as it will be stored. */
export interface ScheduledMessage {
  readonly key: string
  readonly at: DateTime.Utc
  readonly stream: string
  readonly messageId: string
  readonly type: string | undefined
  readonly data: Schema.Json
  readonly metadata: Metadata
  /** Why it could not be written; undefined if it waits. */
  readonly refused: string | undefined
}

/** Asks for scheduled messages, in the order in which they leave. */
export interface ScheduledOptions extends PageOptions {
  /** Those that could not be written, in place of those that wait. Default `false`. */
  readonly refused?: boolean | undefined
}

const isPlace = (parts: unknown): parts is readonly [number, number] =>
  Array.isArray(parts) && parts.length === 2 && parts.every((part) => Number.isSafeInteger(part)) &&
  Option.exists(DateTime.make(parts[0]), (time) => Result.isSuccess(checkTime(time)))

export const make = (storage: Pick<ScheduleStorage, "scheduled">, typeOf: TypeOf) =>
  Effect.fnUntraced(function*(
    { cursor, limit, refused = false }: ScheduledOptions = {}
  ): Effect.fn.Return<Page<ScheduledMessage>, InvalidArgumentError | SqlError> {
    const checked = yield* Effect.fromResult(
      Result.all({ place: partsCursor(cursor, isPlace), limit: checkLimit(limit) })
    )
    const [at, order] = checked.place ?? []
    const { entries, more } = yield* storage.scheduled({
      isRefused: refused,
      after: at === undefined || order === undefined ? undefined : { at: DateTime.makeUnsafe(at), order },
      limit: checked.limit
    })
    const last = entries.at(-1)
    return {
      items: entries.map((each): ScheduledMessage => ({
        key: each.key,
        at: each.at,
        stream: each.stream,
        messageId: each.messageId,
        type: typeOf(each.data),
        data: each.data,
        metadata: each.metadata,
        refused: each.refused
      })),
      next: more && last !== undefined ? JSON.stringify([last.at.epochMilliseconds, last.order]) : undefined
    }
  })
