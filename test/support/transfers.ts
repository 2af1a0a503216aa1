/** The store of the tests of projections. Free of vitest: processes that the tests start use it too. */
import { Schema } from "effect"
import { Message, MessageStore, Partitioner } from "effect-message-store"

export class Moved extends Schema.TaggedClass<Moved>()("Moved", { ...Message.fields, amount: Schema.Int }) {}

export class Transfers extends MessageStore.Service<Transfers>()("test/Transfers", {
  name: "transfers",
  schema: Moved
}) {}

/** What the processes of a test project by: all have to agree. */
export const shared = { name: "shared", patterns: "%", partitioner: Partitioner.streamName(5) }

/** What such a process tells at its end. */
export interface Tally {
  readonly pages: number
  readonly linked: number
}
