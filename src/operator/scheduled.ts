/** Messages that are to be written later. */
import { DateTime, Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import type { OperatorStorage, ScheduledMessage } from "../Storage.ts"
import { checkLimit, type Page, type PageOptions, partsCursor } from "./page.ts"

const isPlace = (parts: unknown): parts is readonly [number, string] =>
  Array.isArray(parts) && parts.length === 2 && Number.isSafeInteger(parts[0]) && typeof parts[1] === "string"

export const make = (storage: OperatorStorage) =>
  Effect.fnUntraced(function*(
    { cursor, limit }: PageOptions = {}
  ): Effect.fn.Return<Page<ScheduledMessage>, InvalidArgumentError | SqlError> {
    const checked = yield* Effect.fromResult(
      Result.all({ after: partsCursor(cursor, isPlace), limit: checkLimit(limit) })
    )
    const [at, key] = checked.after ?? []
    const items = yield* storage.scheduled({
      after: at === undefined || key === undefined ? undefined : { at: DateTime.makeUnsafe(at), key },
      limit: checked.limit
    })
    const last = items.at(-1)
    return {
      items,
      next: items.length === checked.limit && last !== undefined
        ? JSON.stringify([last.at.epochMilliseconds, last.key])
        : undefined
    }
  })
