/**
 * An aggregated stream in memory. Numbers of commits take the place of PostgreSQL's snapshots: a round links what was
 * committed after the previous round, up to the last commit at its beginning.
 */
import { Clock, DateTime, Effect } from "effect"
import { InvalidNameError, StreamDefinitionError } from "../errors.ts"
import { checkEnding } from "../internal/names.ts"
import { compilePattern } from "../internal/pattern.ts"
import {
  type AggregatedStorage,
  type EncodedStoredMessage,
  type OpenedDefinition,
  type PartitionHead,
  PositionQuery,
  type ProjectedPage,
  type ScannedPage
} from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { cut, type SizedRow } from "./pages.ts"
import { Subscribed } from "./subscribed.ts"
import * as MemorySubscription from "./subscriptions.ts"
import * as MemoryVersions from "./versions.ts"

/** The store's messages, as a projection needs them. */
export interface Source<Message extends SourceMessage> {
  readonly lastCommit: number
  readonly lastPosition: number
  /** The messages of these commits, in the order of global positions. */
  readonly committed: (after: number, upTo: number) => ReadonlyArray<Message>
  readonly get: (messageId: string) => Message | undefined
  readonly read: (message: Message) => EncodedStoredMessage
}

export interface SourceMessage extends SizedRow {
  readonly messageId: string
  readonly stream: string
  readonly version: number
  readonly globalPosition: number
  readonly occurredAt: DateTime.Utc
}

/** Its message is looked up when it is read: the store may have been emptied. */
interface Link extends Pick<SourceMessage, "messageId" | "globalPosition" | "occurredAt"> {
  /** Its message was deleted: only the place is left. */
  isGone: boolean
}

/** A round: the messages committed after the previous one, up to `target`. */
interface Round<Message> {
  readonly target: number
  readonly messages: ReadonlyArray<Message>
  /** Where it ends. */
  readonly last: number
  /** The global position up to which it has come. */
  cursor: number
}

interface Links<Message> {
  /** Of the positions: they are given from the start in another one. */
  readonly numbering: number
  definition: string | undefined
  /** The last commit that the last round saw. */
  seen: number
  round: Round<Message> | undefined
  scanned: number
  scannedAt: DateTime.Utc | undefined
  readonly linked: Set<string>
  readonly partitions: Map<number, Array<Link>>
}

/** The content of a token: a page of a round, and where it begins and ends. */
interface Page {
  readonly target: number
  readonly from: number
  readonly to: number
  readonly began: boolean
  readonly done: boolean
}

/** The links of all streams by name, shared by every handle of a stream. */
export class Streams<Message> {
  private readonly byName = new Map<string, Links<Message>>()
  private lastNumbering = 0
  readonly subscriptions = new Map<string, Subscribed>()
  readonly projections = new Map<
    string,
    { readonly stream: string; readonly versions: MemoryVersions.Versions }
  >()

  /** How each was defined when it was linked first; undefined: it was not yet. */
  get defined(): ReadonlyArray<readonly [string, string | undefined]> {
    return Array.from(this.byName, ([name, { definition }]) => [name, definition])
  }

  links(name: string): Links<Message> {
    let links = this.byName.get(name)
    if (links === undefined) {
      links = {
        numbering: ++this.lastNumbering,
        definition: undefined,
        seen: 0,
        round: undefined,
        scanned: 0,
        scannedAt: undefined,
        linked: new Set(),
        partitions: new Map()
      }
      this.byName.set(name, links)
    }
    return links
  }

  /** The places of deleted messages are left, and nothing in them. */
  unlink(deleted: ReadonlyArray<Pick<SourceMessage, "messageId" | "globalPosition">>): void {
    const positions = new Map(deleted.map(({ globalPosition, messageId }) => [messageId, globalPosition]))
    for (const { linked, partitions } of this.byName.values()) {
      for (const link of Array.from(partitions.values()).flat()) {
        if (link.isGone || positions.get(link.messageId) !== link.globalPosition) continue
        link.isGone = true
        linked.delete(link.messageId)
      }
    }
  }

  /** What a subscription remembers; it belongs to the stream that had it first. */
  subscribed(name: string, stream: string): Subscribed {
    let subscribed = this.subscriptions.get(name)
    if (subscribed === undefined) this.subscriptions.set(name, subscribed = new Subscribed(stream))
    return subscribed
  }

  /** The versions of a projection; it belongs to the stream that had it first. */
  projected(name: string, stream: string) {
    const projected = this.projections.get(name) ?? { stream, versions: new MemoryVersions.Versions() }
    this.projections.set(name, projected)
    return projected
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
  { name, partitioner, patterns }: OpenedDefinition,
  wakeup: Wakeup["Service"]
): AggregatedStorage => {
  streams.links(name) // it is there from now on
  const channel = `stream ${name}`
  const description = JSON.stringify({ patterns, partitioner: partitioner ?? "function" })
  const matchers = patterns.map(compilePattern)

  const matches = ({ stream }: SourceMessage): boolean => matchers.some((matcher) => matcher(stream))

  const scan = (after: Page | undefined, limit: number, now: DateTime.Utc): ScannedPage | ProjectedPage => {
    const links = streams.links(name)
    links.scannedAt = now
    const began = after === undefined ? links.round === undefined : after.began
    if (links.round === undefined) {
      const target = source.lastCommit
      if (target === links.seen) {
        return { linked: 0, position: links.scanned, target: links.scanned, began: true, done: true }
      }
      const messages = source.committed(links.seen, target)
      const last = Math.max(links.scanned, messages.at(-1)?.globalPosition ?? 0)
      links.round = { target, messages, last, cursor: 0 }
    }
    const { round } = links
    const from = after === undefined ? round.cursor : after.to
    const { more, rows } = cut(round.messages.filter(({ globalPosition }) => globalPosition > from), limit)
    const done = !more
    const page: Page = { target: round.target, from, to: rows.at(-1)?.globalPosition ?? from, began, done }
    const messages = rows.filter(matches).map((row) => ({ ...source.read(row), isTimed: true }))
    return { messages, token: JSON.stringify(page), done }
  }

  const link: AggregatedStorage["link"] = (token, given, through) =>
    Effect.suspend(() => {
      const { began, done, from, target, to }: Page = JSON.parse(token)
      const links = streams.links(name)
      const { round } = links
      if (round?.target !== target || round.cursor !== from) return Effect.as(Effect.void, undefined)
      let linked = 0
      for (const { messageId, partition } of given) {
        const message = source.get(messageId)
        if (message === undefined || links.linked.has(messageId)) continue
        const chain = links.partitions.get(partition) ?? []
        const { globalPosition, occurredAt } = message
        chain.push({ messageId, globalPosition, occurredAt, isGone: false })
        links.partitions.set(partition, chain)
        links.linked.add(messageId)
        linked++
      }
      const isOver = done && through === undefined
      round.cursor = isOver ? round.last : through ?? to
      links.scanned = Math.max(links.scanned, round.cursor)
      if (isOver) {
        links.seen = target
        links.round = undefined
      }
      const page: ProjectedPage = { linked, position: round.cursor, target: round.last, began, done: isOver }
      return Effect.as(wakeup.signal(channel, linked > 0 ? [{ key: channel, payload: {} }] : []), page)
    })

  /** A position of each partition, found in its links. */
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
    readPartition: ({ fromPosition, limit, partition }) =>
      Effect.sync(() => {
        const links = streams.links(name).partitions.get(partition) ?? []
        const { more, rows } = cut(stored(links, fromPosition), limit)
        return { messages: rows.map(({ message, position }) => ({ ...source.read(message), position })), more }
      }),
    place: (globalPosition) => {
      for (const [partition, links] of streams.links(name).partitions) {
        const position = links.findIndex((each) => !each.isGone && each.globalPosition === globalPosition)
        if (position >= 0) return { partition, position }
      }
      return undefined
    },
    read: (messageId) => {
      const message = source.get(messageId)
      return message && source.read(message)
    },
    numbering: () => streams.links(name).numbering,
    wake: wakeup.signal(channel, [{ key: channel, payload: {} }])
  }

  const firstOf = (links: ReadonlyArray<Link>, isMeant: (each: Link) => boolean): number => {
    const first = links.findIndex((each) => !each.isGone && isMeant(each))
    return first < 0 ? links.length : first
  }

  /** What the store still has of a partition, from a position on. */
  const stored = function*(links: ReadonlyArray<Link>, fromPosition: number) {
    for (let position = fromPosition; position < links.length; position++) {
      const each = links[position]
      const message = each?.isGone === false ? source.get(each.messageId) : undefined
      if (message !== undefined) yield { message, position, size: message.size }
    }
  }

  return {
    readPartition: asked.readPartition,
    partitions: asked.partitions,
    messageIds: (places) =>
      Effect.sync(() =>
        places.flatMap((place) => {
          const at = streams.links(name).partitions.get(place.partition)?.[place.position]
          return at === undefined || at.isGone ? [] : [{ ...place, messageId: at.messageId }]
        })
      ),
    scan: (after, limit) =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        Effect.fnUntraced(function*(now) {
          const links = streams.links(name)
          links.definition ??= description
          if (links.definition !== description) {
            return yield* new StreamDefinitionError({
              aggregatedStream: name,
              stored: links.definition,
              given: description
            })
          }
          return scan(after === undefined ? undefined : JSON.parse(after), limit, DateTime.makeUnsafe(now))
        })
      ),
    link,
    positions: PositionQuery.$match({
      SinceTime: ({ time }) =>
        heads((links) => firstOf(links, ({ occurredAt }) => DateTime.isGreaterThanOrEqualTo(occurredAt, time))),
      AfterGlobalPosition: ({ globalPosition }) =>
        heads((links) => firstOf(links, (each) => each.globalPosition > globalPosition)),
      UpToGlobalPosition: ({ globalPosition }) =>
        heads((links) => links.findLastIndex((each) => !each.isGone && each.globalPosition <= globalPosition))
    }),
    progress: Effect.sync(() => {
      const { partitions, scanned, scannedAt } = streams.links(name)
      const linked = Array.from(partitions.values()).flat()
      return {
        linked: linked.reduce(
          (highest, { globalPosition, isGone }) => isGone ? highest : Math.max(highest, globalPosition),
          0
        ),
        scanned,
        scannedAt,
        stored: source.lastPosition
      }
    }),
    waiting: Effect.sync(() => {
      const { linked, seen } = streams.links(name)
      const unseen = source.committed(seen, source.lastCommit)
      return unseen.filter((message) => matches(message) && !linked.has(message.messageId)).length
    }),
    waitingFor: Effect.map(Clock.currentTimeMillis, (now) => {
      const { linked, seen } = streams.links(name)
      const unseen = source.committed(seen, source.lastCommit)
      const first = unseen.find((message) => matches(message) && !linked.has(message.messageId))
      return first && now - source.read(first).addedAt.epochMilliseconds
    }),
    reset: Effect.sync(() => {
      streams.remove(name)
      streams.links(name).definition = description
    }),
    drop: Effect.sync(() => streams.remove(name)),
    listen: wakeup.listen(channel),
    subscription: (subscription) =>
      Effect.flatMap(Effect.fromResult(checkEnding("subscription", subscription)), () => {
        const subscribed = streams.subscribed(subscription, name)
        if (subscribed.stream !== name) {
          const reason = `is taken by a subscription to "${subscribed.stream}"`
          return Effect.fail(new InvalidNameError({ identifier: subscription, reason }))
        }
        const drop = () => streams.unsubscribe(subscription)
        return Effect.succeed(MemorySubscription.make(subscription, subscribed, asked, drop))
      }),
    projection: (projection) => {
      const projected = streams.projected(projection, name)
      if (projected.stream !== name) {
        const reason = `is taken by a projection of "${projected.stream}"`
        return Effect.fail(new InvalidNameError({ identifier: projection, reason }))
      }
      return Effect.succeed(MemoryVersions.make(projection, projected.versions, {
        heads: asked.partitions,
        subscribed: (subscription) => streams.subscriptions.get(subscription),
        unsubscribe: (subscription) => streams.unsubscribe(subscription)
      }))
    }
  }
}
