/** Where a subscription begins. */
import { DateTime, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkWhole } from "../internal/checks.ts"
import { type AggregatedStorage, type PartitionHead, PositionQuery } from "../Storage.ts"

/**
 * Where a subscription begins, when it is made for the first time: with the first message; behind the last that is
 * linked; with the first that occurred at a time or later; with the first behind a global position. As positions of a
 * partition are not always in the order of times and global positions, messages before that may be among those behind it;
 * none is missed.
 */
export type Start =
  | "beginning"
  | "next"
  | { readonly time: DateTime.DateTime }
  | { readonly globalPosition: number }

/**
 * The positions before the first ones.
 *
 * @internal
 */
export const positionsOf = (
  stream: AggregatedStorage,
  start: Start
): Effect.Effect<ReadonlyArray<PartitionHead>, InvalidArgumentError | SqlError> => {
  if (start === "beginning") return Effect.succeed([])
  if (start === "next") return stream.partitions
  const firsts = "time" in start
    ? stream.positions(PositionQuery.SinceTime({ time: DateTime.toUtc(start.time) }))
    : Effect.flatMap(
      Effect.fromResult(checkWhole("globalPosition", start.globalPosition, 0)),
      (globalPosition) => stream.positions(PositionQuery.AfterGlobalPosition({ globalPosition }))
    )
  return Effect.map(firsts, (heads) => heads.map(({ partition, position }) => ({ partition, position: position - 1 })))
}
