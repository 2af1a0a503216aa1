/** What led to a message, and what came of it: by the causation and correlation ids of metadata. */
import { Effect, Predicate, Result } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkMessageId } from "../internal/checks.ts"
import * as Moment from "../internal/moment.ts"
import type { EncodedStoredMessage, MessageStorage, OperatorStorage } from "../Storage.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"
import { partsCursor } from "./page.ts"
import { checkTimeLimit, takeSteps } from "./search.ts"

/** How far a trace goes. */
export interface TraceOptions {
  /** `next` of the trace before: it goes on with what comes later. */
  readonly cursor?: string | undefined
  /** For how long it looks for consequences. Default 2 seconds, at most 1 minute. */
  readonly timeLimit?: Duration.Input | undefined
}

/**
 * A message, and others of its kin. Each message whose `metadata.causationId` is the id of another one was caused by that;
 * those of the same correlation that name no cause stand for themselves.
 */
export interface Trace {
  readonly message: Message
  /** The first cause that the store has; the message itself, if it names none. */
  readonly root: Message
  /** All that are known, in the order of global positions, root and message included. In a trace that goes on, the new ones. */
  readonly messages: ReadonlyArray<Message>
  /** Leads on, if there may be more. */
  readonly next: string | undefined
  /** The global position that was looked at last; undefined: all of them were. */
  readonly reached: number | undefined
}

/** How many steps a chain of causes is followed, and how many messages a trace has. */
const mostCauses = 100
const mostMessages = 500

const nothing = {
  direction: "forward",
  stream: undefined,
  pattern: undefined,
  tags: [],
  mentions: [],
  correlationId: undefined,
  causationId: undefined,
  fromPosition: 0,
  toPosition: Number.MAX_SAFE_INTEGER,
  fromTime: undefined,
  toTime: undefined
} as const

interface Parts {
  readonly after: number
  readonly ids: ReadonlyArray<string>
}

const isParts = (parts: unknown): parts is Parts =>
  Predicate.hasProperty(parts, "after") && Number.isSafeInteger(parts.after) && Predicate.hasProperty(parts, "ids") &&
  Array.isArray(parts.ids) && parts.ids.every((id) => Result.isSuccess(checkMessageId(String(id))))

const idIn = (field: string) => ({ metadata }: EncodedStoredMessage): string | undefined => {
  const id = metadata[field]
  return typeof id === "string" ? id : undefined
}

const causeOf = (stored: EncodedStoredMessage): string | undefined => {
  const id = checkMessageId(idIn("causationId")(stored) ?? "")
  return Result.isSuccess(id) ? id.success : undefined
}

/** The causes of a message, from the nearest on. */
export const causesOf = Effect.fnUntraced(function*(
  { readByIds }: Pick<MessageStorage, "readByIds">,
  message: EncodedStoredMessage,
  most: number = mostCauses
): Effect.fn.Return<ReadonlyArray<EncodedStoredMessage>, SqlError> {
  const causes: Array<EncodedStoredMessage> = []
  const seen = new Set([message.messageId])
  let id = causeOf(message)
  while (id !== undefined && !seen.has(id) && causes.length < most) {
    const [cause] = yield* readByIds([id])
    if (cause === undefined) break
    causes.push(cause)
    seen.add(id)
    id = causeOf(cause)
  }
  return causes
})

export const make = (storage: OperatorStorage, messages: Pick<MessageStorage, "readByIds">, typeOf: TypeOf) =>
  Effect.fnUntraced(function*(
    messageId: string,
    { cursor, timeLimit }: TraceOptions = {}
  ): Effect.fn.Return<Trace | undefined, InvalidArgumentError | SqlError> {
    const checked = yield* Effect.fromResult(Result.all({
      id: checkMessageId(messageId),
      parts: partsCursor(cursor, isParts),
      timeLimit: checkTimeLimit(timeLimit)
    }))
    const [message] = yield* messages.readByIds([checked.id])
    if (message === undefined) return undefined
    const causes = yield* causesOf(messages, message)
    const root = causes.at(-1) ?? message
    const correlationId = idIn("correlationId")(message) ?? idIn("correlationId")(root) ?? root.messageId
    const known = new Map([message, ...causes].map((each) => [each.messageId, each]))
    const ids = new Set([...known.keys(), ...checked.parts?.ids ?? []])

    const begin = yield* Moment.now
    let after = checked.parts?.after ?? root.globalPosition - 1
    let reached: number | undefined
    while (true) {
      const looked = yield* takeSteps(storage.search, {
        query: { ...nothing, related: { correlationId, causationIds: Array.from(ids) } },
        after,
        limit: mostMessages,
        timeLimit: checked.timeLimit - (yield* Moment.since(begin)),
        isMeant: () => true
      })
      const added = looked.found.filter((each) => !ids.has(each.messageId))
      for (const each of looked.found) {
        known.set(each.messageId, each)
        ids.add(each.messageId)
      }
      reached = looked.reached
      if (added.length === 0) break
      // What they have caused comes behind the first of them, and was looked at before it was known.
      reached = after = Math.min(...added.map((each) => each.globalPosition))
      if (known.size >= mostMessages || (yield* Moment.since(begin)) >= checked.timeLimit) break
    }
    const before = new Set(checked.parts?.ids)
    const sorted = Array.from(known.values()).toSorted((a, b) => a.globalPosition - b.globalPosition)
    const to = toMessage(typeOf)
    return {
      message: to(message),
      root: to(root),
      messages: sorted.filter((each) => !before.has(each.messageId)).map(to),
      next: reached === undefined ? undefined : JSON.stringify({ after: reached, ids: Array.from(ids) }),
      reached
    }
  })
