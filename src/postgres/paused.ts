/** What is paused: rows that are asked for by the statements of workers. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Confirmation, SubscriptionStorage } from "../Storage.ts"
import type { SubscriptionObjects } from "./objects.ts"

/** Whether a partition is paused: SQL, as is the partition. */
export const isPaused = ({ pausedTable }: SubscriptionObjects, partition: string): string =>
  `exists (select from ${pausedTable} z where z.partition is null or z.partition = ${partition})`

/** Of the row of a claim that stands, which says whether its partition is paused. */
export const confirmation = ([row]: ReadonlyArray<Readonly<Record<string, unknown>>>): Confirmation =>
  row === undefined ? "Fenced" : row["is_paused"] === true ? "Paused" : "Confirmed"

export const make = (
  sql: SqlClient,
  { pausedTable }: SubscriptionObjects,
  wakeWorkers: Effect.Effect<void, SqlError>
): Pick<SubscriptionStorage, "pause" | "resume"> => {
  const paused = sql(pausedTable)
  return {
    pause: (partition, { by = null, reason = null }) =>
      Effect.andThen(
        sql`insert into ${paused} (partition, reason, paused_by) values (${
          partition ?? null
        }::int, ${reason}::text, ${by}::text)
          on conflict ((partition is null), (coalesce(partition, 0)))
          do update set reason = excluded.reason, paused_by = excluded.paused_by`,
        wakeWorkers
      ),

    resume: (partition) =>
      Effect.flatMap(
        sql`delete from ${paused} where partition is not distinct from ${partition ?? null}::int returning 1 as done`,
        (rows) => rows.length > 0 ? Effect.as(wakeWorkers, true) : Effect.succeed(false)
      )
  }
}
