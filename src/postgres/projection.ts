/**
 * The projection of a store's messages onto an aggregated stream: nothing skipped, nothing linked twice, nothing stalled.
 *
 * **Algorithm**
 *
 * A round links what one snapshot (its *target*) sees and the target of the round before (*seen*) did not, by the
 * transaction ids (column `tx`) of the messages, in the order of global positions. Whoever writes a message holds the
 * lock of its stream until it commits, so what a snapshot sees of a stream is always a beginning of it: every stream
 * keeps its order, whatever commits when. A message that commits late is linked late, and nothing waits for it.
 *
 * A round works in pages of scanned messages; each commits on its own, together with the place it came to. The next
 * projector goes on there. One projector works at a time: depeche_db's lock, the stream's table in EXCLUSIVE mode.
 *
 * Where a round begins to look follows from *marks*. At its start a round reads the last value of the sequence of
 * positions, *then* takes a transaction id of its own; a writer takes its transaction id first, then its positions. So a
 * transaction with a higher id than the mark has only higher positions than the mark. What `seen` did not see are the
 * transactions that were running then, each with the last mark below its id as its lower bound, and those that began
 * later. A transaction that is open for hours costs a look back once, when it has ended.
 *
 * Two things have to hold for that, and are checked when a round begins. The sequence has no cache: sessions would have
 * positions in stock that are below a mark. And this role may read it: on PostgreSQL 18 a role that may not is told that
 * no position was given out. Each is refused by a `SequenceError`. 'alter sequence … cache 1' takes the stock away from
 * all sessions, and no mark was set meanwhile: the next round finds all that was written.
 *
 * The sequence is read by a function that takes its lock. Read as a table, it shows for a moment a value that `nextval`
 * writes ahead for a crash: a mark that is too high, behind which messages would be missed for ever.
 *
 * Transaction ids belong to a cluster, and what was seen of a table belongs to that table. So a projection remembers the
 * *identity* of the table: cluster, database, table, and file node, which is another one when the table was emptied or
 * rewritten. Where it has changed (a dump was restored), or the sequence was set back, the projection goes through all
 * messages once, and links what is not linked. In a store that was restored into another cluster, a message can be there
 * whose transaction id has not been given out yet. So it first looks for messages that it sees in a snapshot which does
 * not see their transactions: up to the last of them, the *epoch*, messages count as seen by everybody.
 *
 * The functions are those of `migrations/stream/0003_projection.ts`; this module calls them.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import { SequenceError, StreamDefinitionError } from "../errors.ts"
import { timeText } from "../internal/timeText.ts"
import type { BuiltIn } from "../Partitioner.ts"
import type { AggregatedStorage, OpenedDefinition, ProjectedPage, RoundError, ScannedPage } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { type Int8, int8, milliseconds } from "./client/values.ts"
import { type OfStream, toStored } from "./messages.ts"
import type { Store, StreamObjects } from "./objects.ts"
import { seesAll } from "./open.ts"
import { pageBytes, readable, type Row } from "./pages.ts"

/** What the projection functions answer. */
interface Outcome {
  /**
   * `more` or `done`: a page was scanned or linked; `idle`: nothing is new; `marked`: the first mark was set, and the next
   * call begins the round; `moved`: somebody else was faster. The others are why no round can begin.
   */
  readonly state: "more" | "done" | "idle" | "marked" | "moved" | "mismatch" | "unreadable" | "unordered"
  /** The definition that the links follow. */
  readonly stored: string | null
  readonly began: boolean | null
  readonly linked: Int8
  readonly reached: Int8 | null
  readonly last: Int8 | null
}

interface LinkedOutcome extends Outcome {
  /** Of partitions that have grown, a hundred at most: their numbers, last positions, and the messages there. */
  readonly partitions: ReadonlyArray<number> | null
  readonly positions: ReadonlyArray<number> | null
  readonly ids: ReadonlyArray<string> | null
}

/** A new message, or, in the last row, what is to be known of the page. */
interface ScannedRow extends Outcome, Row, OfStream {
  readonly is_timed: boolean
  readonly token: string | null
}

export const make = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  definition: OpenedDefinition,
  description: string,
  wakeup: Wakeup["Service"]
): Pick<AggregatedStorage, "project" | "scan" | "link" | "waiting"> => {
  const { name, partitioner, patterns, timePath = null } = definition

  const sequenceError = (reason: string) =>
    Effect.fail(new SequenceError({ aggregatedStream: name, sequence: store.sequence, reason }))

  /** The only row, or the last one. */
  const checked = <A extends Outcome>(outcome: A | undefined): Effect.Effect<A, RoundError> => {
    switch (outcome?.state) {
      case undefined:
        return Effect.die(new Error("a function that returns a row returned none"))
      case "mismatch":
        return Effect.fail(
          new StreamDefinitionError({ aggregatedStream: name, stored: String(outcome?.stored), given: description })
        )
      case "unordered":
        return sequenceError(
          "has a cache, or does not rise: a message could get a position behind which the projector has looked already. " +
            `Run "alter sequence ${store.sequence} cache 1 increment 1 no cycle"; the projection goes on then, and links ` +
            "what was written meanwhile"
        )
      case "unreadable":
        return sequenceError(
          `cannot be read by this role. Run "grant select on sequence ${store.sequence} to" the role of the projector`
        )
      default:
        return Effect.succeed(outcome as A)
    }
  }

  /** Tells listeners of new heads, as depeche_db does. */
  const tell = ({ ids, partitions, positions }: LinkedOutcome): Effect.Effect<void> =>
    partitions === null
      ? Effect.void
      : wakeup.signal(
        stream.channel,
        partitions.map((partition, i) => ({
          key: String(partition),
          payload: { message_id: ids?.[i], partition, position: positions?.[i] }
        }))
      )

  const whole = seesAll(store, name)

  return {
    project: partitioner && ((limit) =>
      Effect.andThen(
        whole,
        sql<LinkedOutcome>`select * from ${sql(stream.projectFunction)}(
        ${description}, ${patterns}::text[], ${partitioner._tag}, ${numberOf(partitioner)}::bigint,
        ${partitioner._tag === "Field" ? partitioner.path : []}::text[], ${timePath}::text[], ${limit}::int
      )`
      ).pipe(
        Effect.flatMap(([outcome]) => checked(outcome)),
        Effect.tap(tell),
        Effect.map(toPage)
      )),

    scan: (after, limit) =>
      Effect.andThen(
        whole,
        sql<ScannedRow>`select state, stored, began, linked, reached, last, token, message_id, stream, version,
          global_position, ${sql.literal(milliseconds("added_at"))} as added_at, is_timed,
          ${sql.literal(readable(sql, "message"))}, metadata
        from ${sql(stream.scanFunction)}(
          ${description}, ${patterns}::text[], ${after ?? null}::text, ${limit}::int, ${pageBytes}::int8
        )`
      ).pipe(
        Effect.flatMap((rows) => Effect.map(checked(rows.at(-1)), (outcome) => ({ outcome, rows: rows.slice(0, -1) }))),
        Effect.repeat({ until: ({ outcome }) => outcome.state !== "marked" }),
        Effect.map(({ outcome, rows }): ScannedPage | ProjectedPage =>
          outcome.token === null ? toPage(outcome) : {
            messages: toStored(rows, (row) => row.stream).map((stored, i) => ({
              ...stored,
              isTimed: rows[i]?.is_timed === true
            })),
            token: outcome.token,
            done: outcome.state === "done"
          }
        )
      ),

    link: (token, links, through) => {
      // Empty: not known. An array of nulls has no type to bind.
      const times = links.some(({ occurredAt }) => occurredAt !== undefined)
        ? links.map(({ occurredAt }) => occurredAt === undefined ? "" : timeText(occurredAt))
        : []
      return sql<LinkedOutcome>`select * from ${sql(stream.linkFunction)}(
        ${token}, ${through === undefined ? null : int8(through)}::int8, ${
        links.map(({ messageId }) => messageId)
      }::uuid[],
        ${links.map(({ partition }) => partition)}::int[],
        ${times}::text[]
      )`.pipe(
        Effect.flatMap(([outcome]) => Effect.orDie(checked(outcome))),
        Effect.tap(tell),
        Effect.map((outcome) => outcome.state === "moved" ? undefined : toPage(outcome))
      )
    },

    waiting: Effect.map(
      sql<{ readonly count: Int8 }>`select ${sql(stream.waitingFunction)}(${patterns}::text[]) as count`,
      ([row]) => Number(row?.count ?? 0)
    )
  }
}

const numberOf = (partitioner: BuiltIn): string | null => {
  switch (partitioner._tag) {
    case "StreamName":
    case "Field":
      return int8(partitioner.count)
    case "Constant":
      return int8(partitioner.partition)
    case "Depeche":
      return null
  }
}

const toPage = ({ began, last, linked, reached, state }: Outcome): ProjectedPage => ({
  linked: Number(linked),
  position: Number(reached),
  target: Number(last ?? reached),
  began: state === "idle" || began === true,
  done: state === "idle" || state === "done"
})
