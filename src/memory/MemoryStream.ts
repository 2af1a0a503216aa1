/**
 * An aggregated stream in memory. What the snapshots of transactions are on PostgreSQL, the numbers of commits are here:
 * a round links what was committed after the round before, up to the last commit at its beginning.
 */
import { DateTime, Effect } from "effect"
import { InvalidNameError, StreamDefinitionError } from "../errors.ts"
import { partitionOf } from "../Partitioner.ts"
import type {
  AggregatedStorage,
  EncodedStoredMessage,
  PartitionHead,
  ProjectedPage,
  Round,
  StreamDefinition
} from "../Storage.ts"
import { Listeners } from "../Wakeup.ts"
import * as MemorySubscription from "./MemorySubscription.ts"
import { compilePattern } from "./pattern.ts"

/** The store's messages, as a projection needs them. */
export interface Source<Message extends SourceMessage> {
  readonly lastCommit: number
  readonly lastPosition: number
  /** What these commits wrote, in the order of global positions. */
  readonly committed: (after: number, upTo: number) => ReadonlyArray<Message>
  readonly get: (messageId: string) => Message | undefined
  readonly read: (message: Message) => EncodedStoredMessage
}

export interface SourceMessage {
  readonly messageId: string
  readonly stream: string
  readonly version: number
  readonly globalPosition: number
  readonly occurredAt: DateTime.Utc
}

interface Links<Message> {
  definition: string | undefined
  seen: number
  round: Round | undefined
  /** What the round goes through. */
  messages: ReadonlyArray<Message>
  cursor: number
  readonly linked: Set<string>
  readonly partitions: Map<number, Array<Message>>
}

/** What is linked, by the name of the stream: every handle of a stream has the same. */
export class Streams<Message> {
  readonly listeners = new Listeners()
  private readonly byName = new Map<string, Links<Message>>()
  private readonly subscriptions = new Map<string, MemorySubscription.Subscribed>()

  links(name: string): Links<Message> {
    let links = this.byName.get(name)
    if (links === undefined) {
      links = {
        definition: undefined,
        seen: 0,
        round: undefined,
        messages: [],
        cursor: 0,
        linked: new Set(),
        partitions: new Map()
      }
      this.byName.set(name, links)
    }
    return links
  }

  /** What a subscription remembers; it belongs to the stream that had it first. */
  subscribed(name: string, stream: string): MemorySubscription.Subscribed {
    let subscribed = this.subscriptions.get(name)
    if (subscribed === undefined) this.subscriptions.set(name, subscribed = new MemorySubscription.Subscribed(stream))
    return subscribed
  }

  unsubscribe(name: string): void {
    this.subscriptions.delete(name)
  }

  remove(name: string): void {
    this.byName.delete(name)
  }
}

export const make = <Message extends SourceMessage>(
  streams: Streams<Message>,
  source: Source<Message>,
  { name, partitioner, patterns }: StreamDefinition
): AggregatedStorage => {
  const description = JSON.stringify({ patterns, partitioner: partitioner ?? "function" })
  const matchers = patterns.map(compilePattern)

  const beginRound: AggregatedStorage["beginRound"] = Effect.suspend(() => {
    const links = streams.links(name)
    links.definition ??= description
    if (links.definition !== description) {
      return Effect.fail(new StreamDefinitionError({ name, stored: links.definition, given: description }))
    }
    if (links.round !== undefined) return Effect.succeed({ ...links.round, began: false, cursor: links.cursor })
    const target = source.lastCommit
    if (target === links.seen) return Effect.as(Effect.void, undefined)
    links.cursor = 0
    links.messages = source.committed(links.seen, target)
    const last = links.messages.at(-1)?.globalPosition ?? 0
    links.round = { began: true, cursor: 0, last, target: String(target), seen: String(links.seen), epoch: 0 }
    return Effect.succeed(links.round)
  })

  const scan: AggregatedStorage["scan"] = (_round, from, limit) =>
    Effect.sync(() => {
      const { messages } = streams.links(name)
      const rows = messages.filter(({ globalPosition }) => globalPosition > from).slice(0, limit)
      const isNew = ({ stream }: SourceMessage) => matchers.some((matches) => matches(stream))
      return {
        messages: rows.filter(isNew).map((row) => source.read(row)),
        from,
        to: rows.at(-1)?.globalPosition ?? from,
        done: rows.length < limit
      }
    })

  const link: AggregatedStorage["link"] = (round, { done, from, to }, given) =>
    Effect.suspend(() => {
      const links = streams.links(name)
      if (links.round?.target !== round.target || links.cursor !== from) return Effect.as(Effect.void, undefined)
      let linked = 0
      for (const { messageId, partition } of given) {
        const message = source.get(messageId)
        if (message === undefined || links.linked.has(messageId)) continue
        const messages = links.partitions.get(partition) ?? []
        messages.push(message)
        links.partitions.set(partition, messages)
        links.linked.add(messageId)
        linked++
      }
      links.cursor = to
      if (done) {
        links.seen = Number(round.target)
        links.round = undefined
      }
      const page: ProjectedPage = { linked, position: to, target: round.last, began: round.began, done }
      if (linked > 0) streams.listeners.wake(name)
      return Effect.succeed(page)
    })

  const project = Effect.fnUntraced(function*(limit: number) {
    while (true) {
      const round = yield* beginRound
      if (round === undefined) return { linked: 0, position: 0, target: 0, began: true, done: true }
      const page = yield* scan(round, round.cursor, limit)
      const links = yield* Effect.forEach(page.messages, (message) =>
        Effect.map(
          partitioner === undefined
            ? Effect.die(new Error("no built-in partitioner"))
            : partitionOf(partitioner, message),
          (partition) => ({ messageId: message.messageId, partition })
        ))
      const linked = yield* link(round, page, links)
      if (linked !== undefined) return linked
    }
  })

  /** Something about the messages of each partition. */
  const heads = (position: (messages: ReadonlyArray<Message>) => number) =>
    Effect.sync(() =>
      Array.from(streams.links(name).partitions, ([partition, messages]): PartitionHead => ({
        partition,
        position: position(messages)
      })).toSorted((a, b) => a.partition - b.partition)
    )

  const reads: Pick<AggregatedStorage, "partitions" | "readPartition"> = {
    readPartition: ({ fromPosition, limit, partition }) =>
      Effect.sync(() => {
        const messages = streams.links(name).partitions.get(partition)?.slice(fromPosition, fromPosition + limit) ?? []
        return {
          messages: messages.map((message, i) => ({ ...source.read(message), position: fromPosition + i })),
          more: messages.length === limit
        }
      }),
    partitions: heads((messages) => messages.length - 1)
  }

  const place = (globalPosition: number): PartitionHead | undefined => {
    for (const [partition, messages] of streams.links(name).partitions) {
      const position = messages.findIndex((message) => message.globalPosition === globalPosition)
      if (position >= 0) return { partition, position }
    }
    return undefined
  }

  const firstOr = (messages: ReadonlyArray<Message>, isMeant: (message: Message) => boolean): number => {
    const first = messages.findIndex(isMeant)
    return first < 0 ? messages.length : first
  }

  return {
    ...reads,
    project,
    beginRound,
    scan,
    link,
    positionsAtTime: (time) =>
      heads((messages) => firstOr(messages, ({ occurredAt }) => DateTime.isGreaterThanOrEqualTo(occurredAt, time))),
    positionsAtGlobalPosition: (position) =>
      heads((messages) => messages.findLastIndex(({ globalPosition }) => globalPosition <= position)),
    positionsAfterGlobalPosition: (position) =>
      heads((messages) => firstOr(messages, ({ globalPosition }) => globalPosition > position)),
    progress: Effect.sync(() => {
      const linked = Array.from(streams.links(name).partitions.values()).flat()
      return {
        linked: linked.reduce((highest, { globalPosition }) => Math.max(highest, globalPosition), 0),
        stored: source.lastPosition
      }
    }),
    reset: Effect.sync(() => {
      streams.remove(name)
      streams.links(name).definition = description
    }),
    drop: Effect.sync(() => streams.remove(name)),
    listen: streams.listeners.listen(name),
    subscription: (subscription) =>
      Effect.suspend(() => {
        const subscribed = streams.subscribed(subscription, name)
        if (subscribed.stream !== name) {
          const reason = `is taken by a subscription to "${subscribed.stream}"`
          return Effect.fail(new InvalidNameError({ name: subscription, reason }))
        }
        const read = (messageId: string) => {
          const message = source.get(messageId)
          return message && source.read(message)
        }
        const drop = () => streams.unsubscribe(subscription)
        return Effect.succeed(MemorySubscription.make(subscribed, reads, place, read, drop))
      })
  }
}
