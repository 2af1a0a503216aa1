/** What a subject may be asked to do. */
import type { Matches } from "./matches.ts"

export type WriteWork =
  /** Fibers append `size` messages at a time, each to a stream of its own, all to one, or to those that are loaded. */
  | {
    readonly kind: "write"
    readonly fibers: number
    readonly size: number
    readonly streams: "own" | "one" | "loaded"
  }
  /** Fibers append to one stream, expecting the version that they read before. */
  | { readonly kind: "writeExpecting"; readonly fibers: number }
  | DecideWork

/**
 * Fibers decide, one message each: they read what their tags have, fold it, and append if it is unchanged. Or they append on
 * a condition that is known beforehand, and read nothing.
 */
export interface DecideWork {
  readonly kind: "decide" | "appendIf"
  readonly fibers: number
  /**
   * Two new tags; a new one, and one that all fibers have; that one alone, while the message has a new one, too; or a stored one,
   * while the message has two new ones.
   */
  readonly boundary: "own" | "hot" | "shared" | Matches
}

export type ReadWork =
  /** Fibers read loaded streams, whole or their last `size` messages, or all streams in the order of positions. */
  | { readonly kind: "read"; readonly fibers: number }
  | { readonly kind: "readTail"; readonly fibers: number; readonly size: number }
  | { readonly kind: "readAll"; readonly fibers: number }
  /** Fibers read all messages of stored tags. */
  | { readonly kind: "readTagged"; readonly fibers: number; readonly matches: Matches }

/** All loaded messages are tagged anew, while 200 are written in a second. */
export interface RetagWork {
  readonly kind: "retag"
}

/** A loaded stream is updated, one update at a time: one that was never updated before, or the same one again and again. */
export interface UpdateWork {
  readonly kind: "update"
  readonly stream: "new" | "same"
}

/** All stored messages are linked anew. */
export interface LinkWork {
  readonly kind: "link"
  readonly partitioner: "constant" | "streamName" | "field" | "depeche" | "function"
}

/** Messages are handled by a subscription that begins with the first. */
export interface SubscribeWork {
  readonly kind: "subscribe"
  /** How many, by a hash of streams' names; or each stream has its own. */
  readonly partitions: number | "streams"
  readonly messages: number
  readonly delivery: "atLeastOnce" | "transactional"
  readonly acknowledge: "message" | "batch"
  /** Nothing is done, message by message or batch by batch; or a table of the user's is brought up to date. */
  readonly handler: "each" | "batch" | "upsert"
}

/** Messages are handled for a new version of a projection, the one before being what readers see: until they see the new one. */
export interface CatchUpWork {
  readonly kind: "catchUp"
  readonly messages: number
  /** How fast they are handled; or the most MiB that the process had meanwhile. */
  readonly measures: "messages" | "memory"
}

/** Messages, each of a stream of its own, are due at once, and one scheduler writes them. */
export interface ScheduledWork {
  readonly kind: "scheduled"
  readonly messages: number
}

/** As many messages as are loaded go into the empty table, 1000 at a time; or all that are loaded are read or exported. */
export interface ArchiveWork {
  readonly kind: "import" | "export"
}

/** A process starts: it opens a store with so many aggregated streams, each with a subscription, that are all there. */
export interface StartWork {
  readonly kind: "start"
  readonly streams: number
  /** How many milliseconds it takes, or how many statements. */
  readonly measures: "time" | "statements"
}

export type StreamWork =
  | LinkWork
  | ArchiveWork
  /** One new message is linked. */
  | { readonly kind: "linkOne" }
  | SubscribeWork
  | CatchUpWork
  | ScheduledWork
  /** How many statements the server runs for each message that is handled. */
  | { readonly kind: "statements"; readonly work: SubscribeWork }
  | StartWork
  /** How long a message takes from the call of write to its handler, while 100 are written in a second. */
  | { readonly kind: "latency"; readonly percentile: number }
