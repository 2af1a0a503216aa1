/** The services of a library that publishes declarations: what it exports has types that others can name. */
import { Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"

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
