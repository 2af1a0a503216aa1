/** The services of a library that publishes declarations: what it exports has types that others can name. */
import { Effect, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Projection, Subscription } from "effect-message-store"

export class Opened extends Schema.TaggedClass<Opened>()("Opened", { ...Message.fields, id: Schema.String }) {}

export class Tickets extends MessageStore.Service<Tickets>()("test/Tickets", { name: "tickets", schema: Opened }) {}

export class AllTickets extends AggregatedStream.Service<AllTickets>()("test/AllTickets", {
  store: Tickets,
  name: "all_tickets",
  patterns: "%",
  partitioner: Partitioner.constant()
}) {}

export class Mailing extends Subscription.Service<Mailing>()("test/Mailing", {
  stream: AllTickets,
  name: "mailing"
}) {}

export class Counts extends Projection.Service<Counts>()("test/Counts", {
  stream: AllTickets,
  name: "counts",
  version: 1,
  model: Projection.tables(["counts"], () => Effect.void)
}) {}

export class Totals extends Projection.Service<Totals>()("test/Totals", {
  stream: AllTickets,
  name: "totals",
  version: 1,
  model: Projection.state(() => 0)
}) {}
