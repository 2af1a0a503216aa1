/**
 * An aggregated stream in memory. What the snapshots of transactions are on PostgreSQL, the numbers of commits are here:
 * a round links what was committed after the round before, up to the last commit at its beginning.
 */
import { DateTime, Effect } from "effect"
import { InvalidNameError, StreamDefinitionError } from "../errors.ts"
import { partitionOf } from "../Partitioner.ts"
import {
  type AggregatedStorage,
  type EncodedLinkedMessage,
  type EncodedStoredMessage,
  isRound,
  type PartitionHead,
  type ProjectedPage,
  type Round,
  type StreamDefinition
} from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { compilePattern } from "./pattern.ts"
import * as MemorySubscription from "./subscriptions.ts"

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

/** Its message is looked up when it is read: it may have been removed. */
type Link = Pick<SourceMessage, "messageId" | "globalPosition" | "occurredAt">

interface Links<Message> {
  /** Of the positions: they are given from the start in another one. */
  readonly numbering: number
  definition: string | undefined
  seen: number
  round: Round | undefined
  /** What the round goes through. */
  messages: ReadonlyArray<Message>
  cursor: number
  readonly linked: Set<string>
  readonly partitions: Map<number, Array<Link>>
}

/** What is linked, by the name of the stream: every handle of a stream has the same. */
export class Streams<Message> {
  private readonly byName = new Map<string, Links<Message>>()
  private lastNumbering = 0
  private readonly subscriptions = new Map<string, MemorySubscription.Subscribed>()

  links(name: string): Links<Message> {
    let links = this.byName.get(name)
    if (links === undefined) {
      links = {
        numbering: ++this.lastNumbering,
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
  { name, partitioner, patterns }: StreamDefinition,
  wakeup: Wakeup["Service"]
): AggregatedStorage => {
  const channel = `stream ${name}`
  const description = JSON.stringify({ patterns, partitioner: partitioner ?? "function" })
  const matchers = patterns.map(compilePattern)

  const beginRound: AggregatedStorage["beginRound"] = Effect.suspend(
    (): Effect.Effect<Round | ProjectedPage, StreamDefinitionError> => {
      const links = streams.links(name)
      links.definition ??= description
      if (links.definition !== description) {
        return Effect.fail(
          new StreamDefinitionError({ aggregatedStream: name, stored: links.definition, given: description })
        )
      }
      if (links.round !== undefined) return Effect.succeed({ ...links.round, began: false, cursor: links.cursor })
      const target = source.lastCommit
      if (target === links.seen) {
        return Effect.succeed({ linked: 0, position: links.cursor, target: links.cursor, began: true, done: true })
      }
      links.messages = source.committed(links.seen, target)
      const last = Math.max(links.cursor, links.messages.at(-1)?.globalPosition ?? 0)
      links.cursor = 0
      links.round = { began: true, cursor: 0, last, target: String(target), seen: String(links.seen), epoch: 0 }
      return Effect.succeed(links.round)
    }
  )

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
        const chain = links.partitions.get(partition) ?? []
        chain.push({ messageId, globalPosition: message.globalPosition, occurredAt: message.occurredAt })
        links.partitions.set(partition, chain)
        links.linked.add(messageId)
        linked++
      }
      links.cursor = done ? round.last : to
      if (done) {
        links.seen = Number(round.target)
        links.round = undefined
      }
      const page: ProjectedPage = { linked, position: links.cursor, target: round.last, began: round.began, done }
      return Effect.as(wakeup.signal(channel, linked > 0 ? [{ key: channel, payload: {} }] : []), page)
    })

  const project = Effect.fnUntraced(function*(limit: number) {
    while (true) {
      const round = yield* beginRound
      if (!isRound(round)) return round
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

  /** Something about the links of each partition. */
  const heads = (position: (links: ReadonlyArray<Link>) => number) =>
    Effect.sync(() =>
      Array.from(streams.links(name).partitions, ([partition, links]): PartitionHead => ({
        partition,
        position: position(links)
      })).toSorted((a, b) => a.partition - b.partition)
    )

  /** What subscriptions ask. */
  const asked: MemorySubscription.Source = {
    partitions: heads((links) => links.length - 1),
    place: (globalPosition) => {
      for (const [partition, links] of streams.links(name).partitions) {
        const position = links.findIndex((each) => each.globalPosition === globalPosition)
        if (position >= 0) return { partition, position }
      }
      return undefined
    },
    read: (messageId) => {
      const message = source.get(messageId)
      return message && source.read(message)
    },
    numbering: () => streams.links(name).numbering
  }

  const firstOf = (links: ReadonlyArray<Link>, isMeant: (each: Link) => boolean): number => {
    const first = links.findIndex(isMeant)
    return first < 0 ? links.length : first
  }

  return {
    readPartition: ({ fromPosition, limit, partition }) =>
      Effect.sync(() => {
        const links = streams.links(name).partitions.get(partition) ?? []
        const messages: Array<EncodedLinkedMessage> = []
        for (let position = fromPosition; position < links.length && messages.length < limit; position++) {
          const message = asked.read(links[position]?.messageId ?? "")
          if (message !== undefined) messages.push({ ...message, position })
        }
        return { messages, more: messages.length === limit }
      }),
    partitions: asked.partitions,
    project,
    beginRound,
    scan,
    link,
    positionsAtTime: (time) =>
      heads((links) => firstOf(links, ({ occurredAt }) => DateTime.isGreaterThanOrEqualTo(occurredAt, time))),
    positionsAtGlobalPosition: (position) =>
      heads((links) => links.findLastIndex(({ globalPosition }) => globalPosition <= position)),
    positionsAfterGlobalPosition: (position) =>
      heads((links) => firstOf(links, ({ globalPosition }) => globalPosition > position)),
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
    listen: wakeup.listen(channel),
    subscription: (subscription) =>
      Effect.suspend(() => {
        const subscribed = streams.subscribed(subscription, name)
        if (subscribed.stream !== name) {
          const reason = `is taken by a subscription to "${subscribed.stream}"`
          return Effect.fail(new InvalidNameError({ identifier: subscription, reason }))
        }
        const drop = () => streams.unsubscribe(subscription)
        return Effect.succeed(MemorySubscription.make(subscription, subscribed, asked, drop))
      })
  }
}
