/**
 * The store of the tests of subscriptions, and what is done with its messages. Free of vitest: processes that the tests
 * start use it too.
 */
import { Effect, Schema } from "effect"
import { Message, MessageStore, Partitioner, type Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"

export class Done extends Schema.TaggedClass<Done>()("Done", { ...Message.fields, number: Schema.Int }) {}

export class Work extends MessageStore.Service<Work>()("test/Work", { name: "work", schema: Done }) {}

/** All of the store's streams, by their names. */
export const stream = Effect.fnUntraced(function*(partitions: number) {
  const work = yield* Work
  return yield* work.aggregatedStream({
    name: "worked",
    patterns: "%",
    partitioner: Partitioner.streamName(partitions)
  })
})

/** What handlers write: without a unique key, so that whatever is done twice shows. */
export const createEffects = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql`create table if not exists effects (
      seq bigserial, subscription text, partition int, position int, message_id uuid, worker text,
      at timestamptz default clock_timestamp())`
)

/** A handler that writes what it was given: in the transaction that is open, else on a connection of its own. */
export const record = (sql: SqlClient.SqlClient, subscription: string, worker: string) =>
(
  _: unknown,
  { messageId, partition, position }: {
    readonly messageId: string
    readonly partition: number
    readonly position: number
  }
) =>
  sql`insert into effects (subscription, partition, position, message_id, worker)
    values (${subscription}, ${partition}, ${position}, ${messageId}::uuid, ${worker})`

interface OfProcess {
  readonly url: string
  readonly database: string
  /** The application's name, as PostgreSQL shows it. */
  readonly name: string
}

export interface WorkerConfig extends OfProcess {
  readonly _tag: "Worker"
  readonly partitions: number
  readonly projects: boolean
  readonly subscriptions: ReadonlyArray<
    Pick<Subscription.Options, "name" | "delivery" | "acknowledge" | "batchSize"> & {
      /** Of leases; session locks without. */
      readonly lease?: number
      /** How long a handler takes. */
      readonly pauseMilliseconds?: number
      /** Its handler fails with each message of such a number, as long as this file does not exist. */
      readonly refuses?: { readonly every: number; readonly until: string }
      /** At this position the process blocks, once, until this file exists. */
      readonly stall?: { readonly position: number; readonly file: string }
    }
  >
}

export interface WriterConfig extends OfProcess {
  readonly _tag: "Writer"
  readonly batches: number
  readonly batchSize: number
  readonly streams: number
  readonly pauseMilliseconds: number
}

export type ProcessConfig = WorkerConfig | WriterConfig

/** What a process tells. */
export type Told =
  | { readonly _tag: "Ready" }
  | { readonly _tag: "Stalled" }
  /** Until now: microseconds of processor time, and how often it has written to a socket, as each statement does once. */
  | { readonly _tag: "Usage"; readonly processor: number; readonly sent: number }
