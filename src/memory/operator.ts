/** What operators ask about a store in memory. */
import { Clock, DateTime, Duration, Effect, Predicate } from "effect"
import { alike } from "../internal/alike.ts"
import { compilePattern } from "../internal/pattern.ts"
import type {
  Catalogue,
  CataloguedConsumer,
  CataloguedStream,
  EncodedStoredMessage,
  ListedEntry,
  Looked,
  ObjectsVersion,
  OpenedDefinition,
  OperatorStorage,
  ParkedError,
  PartitionStatus,
  SearchQuery,
  StreamSummary,
  Tagged
} from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import * as MemoryStream from "./streams.ts"

/** A message as it is kept. */
interface OperatedMessage extends MemoryStream.SourceMessage {
  readonly data: string
  readonly metadata: string
  readonly addedAt: DateTime.Utc
  readonly tagged: Tagged | undefined
}

/** The messages of a store. */
export interface Source<Message extends OperatedMessage> extends MemoryStream.Source<Message> {
  /** In the order of global positions. */
  readonly stored: ReadonlyArray<Message>
}

/** Nothing was made that could be of another version. */
const objects: ObjectsVersion = { made: 0, known: 0 }

/** Whether all of this is true of a message. */
const matcher = (query: SearchQuery) => {
  const { causationId, correlationId, fromTime, mentions, pattern, related, stream, tags, toTime } = query
  const matches = pattern === undefined ? () => true : compilePattern(pattern)
  return (row: OperatedMessage): boolean => {
    const metadata = JSON.parse(row.metadata)
    const has = (field: string, value: string | undefined) =>
      value !== undefined && Predicate.hasProperty(metadata, field) && String(metadata[field]) === value
    return (stream === undefined || row.stream === stream) && matches(row.stream) &&
      row.globalPosition >= query.fromPosition && row.globalPosition <= query.toPosition &&
      tags.every((tag) => row.tagged?.tags.includes(tag)) &&
      (mentions.length === 0 || mentions.some((text) => row.data.includes(JSON.stringify(text)))) &&
      (correlationId === undefined || has("correlationId", correlationId)) &&
      (causationId === undefined || has("causationId", causationId)) &&
      (related === undefined || has("correlationId", related.correlationId) ||
        related.causationIds.some((id) => has("causationId", id))) &&
      (fromTime === undefined || DateTime.isGreaterThanOrEqualTo(row.addedAt, fromTime)) &&
      (toTime === undefined || DateTime.isLessThanOrEqualTo(row.addedAt, toTime))
  }
}

/** What is looked at, in its order, and what the order is by. */
const lookedAt = <Message extends OperatedMessage>(
  stored: ReadonlyArray<Message>,
  { after, direction, scan, stream, tags: [tag] }: SearchQuery
) => {
  const at = ({ globalPosition, version }: Message) => stream === undefined ? globalPosition : version
  const rows = stored.filter((row) =>
    (stream === undefined || row.stream === stream) &&
    (stream !== undefined || tag === undefined || row.tagged?.tags.includes(tag)) &&
    (after === undefined || (direction === "forward" ? at(row) > after : at(row) < after))
  )
  return { at, rows: (direction === "forward" ? rows : rows.toReversed()).slice(0, scan) }
}

export const make = <Message extends OperatedMessage>(
  source: Source<Message>,
  streams: MemoryStream.Streams<Message>,
  scheduled: () => ReadonlyArray<Pick<ListedEntry, "at" | "refused">>,
  wakeup: Wakeup["Service"]
): OperatorStorage => {
  const open = (definition: OpenedDefinition) => MemoryStream.make(streams, source, definition, wakeup)

  const search = (query: SearchQuery): Looked<EncodedStoredMessage, number> => {
    const { at, rows } = lookedAt(source.stored, query)
    const all = rows.filter(matcher(query))
    const found = all.slice(0, query.limit)
    const last = found.length === query.limit ? found.at(-1) : rows.length === query.scan ? rows.at(-1) : undefined
    return { found: found.map((row) => source.read(row)), reached: last && at(last) }
  }

  const summaries = (): ReadonlyArray<StreamSummary> => {
    const byName = new Map<string, StreamSummary>()
    for (const { addedAt, globalPosition, stream, version } of source.stored) {
      const messages = (byName.get(stream)?.messages ?? 0) + 1
      byName.set(stream, { stream, version, messages, globalPosition, addedAt })
    }
    return Array.from(byName.values()).toSorted((a, b) => a.stream < b.stream ? -1 : a.stream > b.stream ? 1 : 0)
  }

  const catalogue: Effect.Effect<Catalogue> = Effect.sync(() => {
    const byName = <A>(of: Iterable<readonly [string, A]>) =>
      Array.from(of).toSorted(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)
    const consumers = (of: Iterable<readonly [string, { readonly stream: string }]>) =>
      byName(of).map(([name, { stream }]): CataloguedConsumer => ({ name, aggregatedStream: stream, objects }))
    return {
      store: objects,
      aggregatedStreams: byName(streams.defined).map(([name, text]): CataloguedStream => {
        const { partitioner = "function", patterns = [] } = text === undefined ? {} : JSON.parse(text)
        return {
          definition: { name, patterns, partitioner: partitioner === "function" ? undefined : partitioner },
          objects
        }
      }),
      subscriptions: consumers(streams.subscriptions),
      projections: consumers(streams.projections),
      unreadable: []
    }
  })

  const statusOf = ({ aggregatedStream, name }: CataloguedConsumer) =>
    Effect.flatMap(
      Effect.orDie(open({ name: aggregatedStream, patterns: [], partitioner: undefined }).subscription(name)),
      ({ status }) => status
    )

  const isUnfinished = ({ checkpoint, halted, parked, paused, position, unknownType }: PartitionStatus) =>
    position > checkpoint || parked > 0 || paused !== undefined || halted !== undefined || unknownType !== undefined

  return {
    bounded: () => (effect) => effect,
    catalogue,
    open: (definition) => Effect.sync(() => open(definition)),
    search: (query) => Effect.sync(() => search(query)),
    positionsAt: () => Effect.succeed({ from: 0, to: Number.MAX_SAFE_INTEGER }),

    streams: ({ after, limit, pattern, scan }) =>
      Effect.sync(() => {
        const matches = pattern === undefined ? () => true : compilePattern(pattern)
        const names = summaries().filter(({ stream }) => after === undefined || stream > after).slice(0, scan)
        const found = names.filter(({ stream }) => matches(stream)).slice(0, limit)
        const last = found.length === limit ? found.at(-1) : names.length === scan ? names.at(-1) : undefined
        return { found, reached: last?.stream }
      }),

    places: (messageId, names) =>
      Effect.sync(() =>
        names.flatMap((aggregatedStream) =>
          Array.from(streams.links(aggregatedStream).partitions).flatMap(([partition, links]) => {
            const position = links.findIndex((link) => link.messageId === messageId)
            return position < 0 ? [] : [{ aggregatedStream, partition, position }]
          })
        )
      ),

    totals: Effect.fnUntraced(function*(consumer) {
      const all = yield* statusOf(consumer)
      const subscribed = streams.subscriptions.get(consumer.name)
      const state = subscribed?.state
      const ages = all.flatMap(({ age }) => age === undefined ? [] : [Duration.toMillis(age)])
      const times = all.flatMap(({ acknowledgedAt }) => acknowledgedAt === undefined ? [] : [acknowledgedAt])
      const owners = all.flatMap(({ claimedBy }) => claimedBy === undefined ? [] : [claimedBy])
      const numbering = state?.numbering
      return {
        partitions: all.length,
        lag: all.reduce((sum, { checkpoint, position }) => sum + Math.max(position - checkpoint, 0), 0),
        age: ages.length === 0 ? undefined : Duration.millis(Math.max(...ages)),
        claimed: subscribed?.holders.size ?? 0,
        claimedBy: Array.from(new Set(owners)).toSorted().slice(0, 100),
        halted: all.filter(({ halted }) => halted !== undefined).length,
        unknownType: all.filter(({ unknownType }) => unknownType !== undefined).length,
        pausedPartitions: Array.from(state?.paused.keys() ?? []).filter((partition) => partition !== undefined).length,
        paused: state?.paused.get(undefined),
        parked: state?.parked.size ?? 0,
        requeued: Array.from(state?.parked.values() ?? []).filter(({ requeuedAt }) => requeuedAt !== undefined).length,
        acknowledgedAt: times.reduce<DateTime.Utc | undefined>(
          (latest, time) => latest === undefined ? time : DateTime.max(latest, time),
          undefined
        ),
        isVoid: numbering !== undefined && numbering !== streams.links(consumer.aggregatedStream).numbering
      }
    }),

    partitions: (consumer, { after = -1, limit, onlyUnfinished }) =>
      Effect.map(
        statusOf(consumer),
        (all) => all.filter((each) => each.partition > after && (!onlyUnfinished || isUnfinished(each))).slice(0, limit)
      ),

    parkedErrors: ({ name }, limit) =>
      Effect.sync(() => {
        const groups = new Map<string, ParkedError>()
        for (const { error, parkedAt } of streams.subscriptions.get(name)?.state.parked.values() ?? []) {
          const [tag, message] = [error.tag, alike(error.message)]
          const key = JSON.stringify([tag, message])
          const group = groups.get(key) ?? { tag, message, count: 0, firstParkedAt: parkedAt, lastParkedAt: parkedAt }
          groups.set(key, {
            ...group,
            count: group.count + 1,
            firstParkedAt: DateTime.min(group.firstParkedAt, parkedAt),
            lastParkedAt: DateTime.max(group.lastParkedAt, parkedAt)
          })
        }
        const nameOf = ({ message, tag }: ParkedError) => `${tag}\0${message}`
        return Array.from(groups.values())
          .toSorted((a, b) => b.count - a.count || (nameOf(a) < nameOf(b) ? -1 : 1))
          .slice(0, limit)
      }),

    scheduledTotals: Effect.map(Clock.currentTimeMillis, (now) => {
      const all = scheduled()
      const waiting = all.filter(({ refused }) => refused === undefined)
      const first = waiting.reduce((earliest, { at }) => Math.min(earliest, at.epochMilliseconds), Infinity)
      return {
        waiting: waiting.length,
        refused: all.length - waiting.length,
        overdue: first < now ? Duration.millis(now - first) : undefined
      }
    }),

    vitals: () =>
      Effect.map(Clock.currentTimeMillis, (now) => ({
        messages: source.stored.length,
        lastPosition: source.lastPosition,
        bytes: undefined,
        now: DateTime.makeUnsafe(now),
        transactions: [],
        seesAllTransactions: true,
        sessions: undefined
      }))
  }
}
