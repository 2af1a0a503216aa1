/**
 * Gives messages that were stored before their tags were declared the tags that they would have today: each is decoded, so that
 * older shapes count as what they are now, and encoded again.
 *
 * Pages go from the first position to where the declaration came into force. How far it has come is kept with the declarations and
 * moves with the tags of a page, so that it can be ended at any time; of several processes one moves it, and the others find that it
 * has moved.
 */
import { Effect, Fiber, Option, Result, Schedule, Stream } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, TaggingError } from "../errors.ts"
import { inBackground } from "../internal/background.ts"
import { outsideTransaction } from "../internal/checks.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { DeclaredTag, EncodedStoredMessage, Page, Storage, TaggedPage } from "../Storage.ts"
import { declaredBy, incomplete } from "./declarations.ts"

/** How far the tagging of messages has come that were stored before their tags were declared. */
export interface TaggingProgress {
  /** How many messages this call has looked at. */
  readonly scanned: number
  /** How many of them were given tags. */
  readonly tagged: number
  /** The global position up to which messages have their tags, and up to which they are to have them; 0: not known yet. */
  readonly position: number
  readonly upTo: number
  /** How many transactions are waited for that were open when the tags were declared, and may write messages without them. */
  readonly waitsFor: number
}

/** Which messages are passed over. */
export interface TaggingOptions {
  /**
   * The ids of messages that are to have no tags, since they cannot be decoded, or cannot have the tags that they should. Nobody
   * finds them by tags, and no decision on tags is made on them. Default: none.
   */
  readonly without?: ReadonlyArray<string> | undefined
}

/** How `layerTagging` runs. */
export interface TaggingLayerOptions extends TaggingOptions {
  /**
   * When the tagging that has failed runs again; its input is the error. Default: after 30 seconds, each time. When the
   * schedule ends, the tagging ends. Each failure is logged as an error.
   */
  readonly restart?: Schedule.Schedule<unknown, TaggingFailure> | undefined
}

/** Why tagging may fail: messages that cannot be tagged, an open transaction, the database. */
export type TaggingFailure = TaggingError | InvalidArgumentError | SqlError

/** Messages looked at in one page. */
const pageSize = 2000

/** How long to wait for transactions, and for a process that tags the same messages. */
const pause = "100 millis"

/** How many messages an error tells. */
const mostTold = 100

const begun: TaggingProgress = { scanned: 0, tagged: 0, position: 0, upTo: 0, waitsFor: 0 }

/**
 * @internal
 */
export const make = <A>(storage: Storage["Service"], codec: MessageCodec<A>, store: string) =>
(
  { without = [] }: TaggingOptions = {}
): Stream.Stream<TaggingProgress, TaggingFailure> => {
  const untagged = new Set(without.map((id) => id.toLowerCase()))

  const read = (range: Range) =>
    storage.readPattern({
      pattern: "%",
      fromPosition: range.from + 1,
      toPosition: endOf(range),
      direction: "forward",
      limit: pageSize
    })

  /** What is to be tagged next; undefined: nothing, or nothing yet. */
  const look = Effect.gen(function*() {
    const unsettled = incomplete(codec.tags, yield* storage.declaredTags).filter(({ upTo }) => upTo === undefined)
    const waitsFor = unsettled.length === 0 ? 0 : yield* storage.settleTags(unsettled)
    const declared = yield* storage.declaredTags
    const open = incomplete(codec.tags, declared)
    const end = Math.max(0, ...declaredBy(codec.tags, declared).map(({ upTo = 0 }) => upTo))
    return { waitsFor, range: nextRange(open), isDone: open.length === 0, end }
  })

  const step = Effect.fnUntraced(function*(
    { ahead, progress, range }: State
  ): Effect.fn.Return<
    readonly [ReadonlyArray<TaggingProgress>, Option.Option<State>],
    TaggingError | SqlError,
    Scope.Scope
  > {
    const answer = (next: TaggingProgress, state?: Partial<State>) =>
      [[next], Option.some({ ahead: undefined, range: undefined, ...state, progress: next })] as const

    if (range === undefined) {
      const { end, isDone, range: next, waitsFor } = yield* look
      if (isDone) return [[{ ...progress, position: end, upTo: end, waitsFor }], Option.none()]
      if (next !== undefined) {
        return [[], Option.some({ ahead: undefined, range: next, progress: { ...progress, waitsFor } })]
      }
      yield* Effect.sleep(pause)
      return answer({ ...progress, waitsFor })
    }
    const { messages, more } = ahead === undefined ? yield* read(range) : yield* Fiber.join(ahead)
    const { from, places, upTo } = range
    const end = endOf(range)
    const to = more ? messages.at(-1)?.globalPosition ?? end : end
    const isSparse = messages.length < pageSize / 4
    const rest = to < upTo ? { ...range, from: to, span: isSparse ? 2 * range.span : pageSize } : undefined
    // The next page is read while this one is tagged.
    const next = rest === undefined ? undefined : yield* Effect.forkScoped(read(rest))
    const { faults, tags } = tagsOf(codec, places, messages.filter(({ messageId }) => !untagged.has(messageId)))
    if (faults.length > 0) return yield* new TaggingError({ store, messages: faults.slice(0, mostTold) })
    if (!(yield* storage.tagStored({ places, from, to, tags }))) {
      yield* Effect.sleep(pause) // for whoever was faster
      return answer({ ...progress, position: from, upTo })
    }
    const scanned = progress.scanned + messages.length
    const tagged = progress.tagged + new Set(tags.map(({ globalPosition }) => globalPosition)).size
    return answer({ ...progress, scanned, tagged, position: to, upTo }, { range: rest, ahead: next })
  })

  return Stream.unwrap(Effect.as(
    outsideTransaction(storage, "tagging"),
    Stream.scoped(Stream.paginate({ ahead: undefined, range: undefined, progress: begun } as State, step))
  ))
}

/** Places that have come equally far, and up to where. */
interface Range {
  readonly places: ReadonlyArray<DeclaredTag>
  readonly from: number
  readonly upTo: number
  /**
   * How many positions a page has: a page that says where it ends is found by its index, whatever the database knows of
   * the table. More where there are few messages.
   */
  readonly span: number
}

const endOf = ({ from, span, upTo }: Range): number => Math.min(upTo, from + span)

interface State {
  readonly progress: TaggingProgress
  /** What is tagged next; undefined: look. */
  readonly range: Range | undefined
  /** Its messages, if they are being read. */
  readonly ahead: Fiber.Fiber<Page, SqlError> | undefined
}

/** Of the places that are in force those that have come least far, up to where the next one has come. */
const nextRange = (open: ReadonlyArray<DeclaredTag>): Range | undefined => {
  const settled = open.filter(({ upTo }) => upTo !== undefined)
  if (settled.length === 0) return undefined
  const from = Math.min(...settled.map(({ position }) => position))
  const places = settled.filter(({ position }) => position === from)
  const next = settled.flatMap(({ position }) => position > from ? [position] : [])
  return { places, from, span: pageSize, upTo: Math.min(...next, ...places.map(({ upTo }) => upTo ?? from)) }
}

/** The tags of messages at these places, and the messages that cannot be said to have them or not. */
const tagsOf = <A>(
  codec: MessageCodec<A>,
  places: ReadonlyArray<DeclaredTag>,
  messages: ReadonlyArray<EncodedStoredMessage>
) => {
  const wanted = new Map<string, Set<string>>()
  for (const { tag, type } of places) wanted.set(type, (wanted.get(type) ?? new Set()).add(tag))
  const tags: Array<TaggedPage["tags"][number]> = []
  const faults: Array<TaggingError["messages"][number]> = []
  for (const message of messages) {
    const { data, globalPosition, messageId, oversize, stream, version } = message
    const type = codec.typeOf(data) ?? ""
    const names = wanted.get(type)
    if (names === undefined && oversize === undefined) continue
    const found = oversize === undefined
      ? codec.tagsToday(data)
      : Result.fail(`it has ${oversize} bytes as the database prints it, more than the client reads at once`)
    if (Result.isFailure(found)) {
      faults.push({ messageId, stream, version, reason: found.failure })
      continue
    }
    for (const tag of found.success) {
      if (names?.has(tag.slice(0, tag.indexOf(":")))) tags.push({ globalPosition, type, tag })
    }
  }
  return { tags, faults }
}

/**
 * @internal
 */
export const tagInBackground = (
  { name, tagging }: { readonly name: string; readonly tagging: ReturnType<typeof make> },
  { restart = Schedule.spaced("30 seconds"), ...options }: TaggingLayerOptions = {}
): Effect.Effect<void, never, Scope.Scope> =>
  inBackground(`the tagging of ${name}`, Stream.runDrain(tagging(options)), restart)
