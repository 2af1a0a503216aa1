/** Whether messages that have versions already join what is stored. */
import { Result } from "effect"
import { type ArchivedMessage, Refusal } from "./archive.ts"

/** The first and the last version of a stream; 0: it has no message. */
export interface Versions {
  readonly first: number
  readonly last: number
}

type Refused = { readonly index: number; readonly refusal: Refusal }

/** Those that may be stored already, by the versions of their streams: their ids have to be looked at. */
export const overlapping = (
  messages: ReadonlyArray<ArchivedMessage>,
  versionsOf: (stream: string) => Versions
): ReadonlyArray<ArchivedMessage> =>
  messages.filter(({ stream, version }) => {
    const { first, last } = versionsOf(stream)
    return version >= first && version <= last
  })

/** Those that are to be stored: all but those that are; or why one of them cannot be. */
export const joining = (
  messages: ReadonlyArray<ArchivedMessage>,
  versionsOf: (stream: string) => Versions,
  storedAt: (message: ArchivedMessage) => string | undefined
): Result.Result<ReadonlyArray<ArchivedMessage>, Refused> => {
  const heads = new Map<string, number>()
  const given = new Map<string, ArchivedMessage>()
  const missing: Array<ArchivedMessage> = []
  for (const [index, message] of messages.entries()) {
    const { messageId, stream, version } = message
    const same = given.get(messageId)
    if (same !== undefined) {
      return refuse(index, Refusal.Elsewhere({ stream: same.stream, version: same.version }))
    }
    given.set(messageId, message)
    const stored = versionsOf(stream)
    const head = heads.get(stream) ?? stored.last
    if (version > stored.last) {
      // A stream without messages may begin with any version.
      if (head > 0 && version !== head + 1) return refuse(index, Refusal.Gap({ actualVersion: head }))
      heads.set(stream, version)
      missing.push(message)
    } else if (version < stored.first) {
      return refuse(index, Refusal.Before({ firstVersion: stored.first }))
    } else {
      const storedMessageId = storedAt(message) ?? "none"
      if (storedMessageId !== messageId) return refuse(index, Refusal.Differs({ storedMessageId }))
    }
  }
  return Result.succeed(missing)
}

const refuse = (index: number, refusal: Refusal): Result.Result<never, Refused> => Result.fail({ index, refusal })
