/** The aggregated stream that the soak links, and handles. */
import { Effect } from "effect"
import { Partitioner } from "effect-message-store"
import { Orders } from "../message.ts"

export const makeStream = Effect.flatMap(
  Orders,
  (orders) => orders.aggregatedStream({ name: "soak", patterns: "stored%", partitioner: Partitioner.streamName(16) })
)
