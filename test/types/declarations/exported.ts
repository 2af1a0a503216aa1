/** A module of that library which imports the services alone: each type has to be found by the compiler itself. */
import { Effect, Stream } from "effect"
import { Archive, Operator } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { AllTickets, Counts, Mailing, Opened, Tickets, Totals } from "./tickets.ts"

export const store = Effect.map(Tickets, (tickets) => tickets)
export const head = Effect.flatMap(Tickets, (tickets) => tickets.head("x"))
export const messages = Effect.map(Tickets, (tickets) => tickets.read("x"))
export const collected = Effect.flatMap(Tickets, (tickets) => Stream.runCollect(tickets.read("x")))
export const written = Effect.flatMap(Tickets, (tickets) => tickets.write("x", new Opened({ id: "1" })))
export const writtenAll = Effect.flatMap(Tickets, (tickets) => tickets.writeAll([]))
export const synchronized = Effect.flatMap(Tickets, (tickets) => tickets.synchronize("x", []))
export const update = Effect.map(Tickets, (tickets) => tickets.update)
export const reader = Effect.flatMap(Tickets, (tickets) => tickets.reader)
export const wildcard = Effect.map(reader, (all) => all.readWildcard("%"))
export const schedule = Effect.map(Tickets, (tickets) => tickets.schedule)
export const scheduler = Effect.map(Tickets, (tickets) => tickets.scheduler)
export const scheduling = Tickets.layerScheduler()
export const migrations = Tickets.migrations
export const layers = [Tickets.layer, AllTickets.layer, AllTickets.layerProjector(), Mailing.layer]

export const archive = Effect.map(Tickets, (tickets) => Archive.of(tickets))
export const opened = Archive.open("tickets")
export const exported = Effect.map(opened, (all) => all.export())
export const imported = Effect.map(opened, (all) => all.import(Archive.fromFile("x")))
export const archived = Effect.map(opened, (all) => all.delete(Archive.fromFile("x")))
export const verified = Archive.verify(Archive.fromFile("x"))

export const stream = Effect.map(AllTickets, (all) => all)
export const partition = Effect.map(AllTickets, (all) => all.read(0))
export const followed = Effect.map(AllTickets, (all) => all.follow())
export const partitions = Effect.flatMap(AllTickets, (all) => all.partitions)
export const statistics = Effect.flatMap(AllTickets, (all) => all.statistics)
export const projector = Effect.map(AllTickets, (all) => all.projector)
export const progress = Effect.flatMap(AllTickets, (all) => all.projector.runOnce)
export const rebuilt = Effect.flatMap(AllTickets, (all) => all.rebuild)

export const subscription = Effect.map(Mailing, (mailing) => mailing)
export const parked = Effect.flatMap(Mailing, (mailing) => mailing.parked)
export const replay = Effect.map(Mailing, (mailing) => mailing.replay)
export const replayed = Effect.flatMap(Mailing, (mailing) => mailing.replay(() => Effect.void))
export const status = Effect.flatMap(Mailing, (mailing) => mailing.status)

export const projection = Effect.map(Counts, (counts) => counts)
export const promoted = Effect.flatMap(Counts, (counts) => counts.promoted)
export const total = Effect.flatMap(Totals, (totals) => totals.promoted)
export const versions = Effect.flatMap(Counts, (counts) => counts.status)
export const versionProgress = Effect.map(Counts, (counts) => counts.progress)
export const promote = Effect.map(Counts, (counts) => counts.promote)
export const counting = [Counts.layer, Counts.layerHandler(() => Effect.void), Totals.layerHandler(() => Effect.void)]
export const countMigrations = Counts.migrations

export const operator = Effect.map(Operator.Operator, (service) => service)
export const overview = Effect.flatMap(Operator.Operator, (service) => service.overview)
export const health = Effect.flatMap(Operator.Operator, (service) => service.health())
export const found = Effect.flatMap(Operator.Operator, (service) => service.search())
export const details = Effect.flatMap(Operator.Operator, (service) => service.message("x"))
export const trace = Effect.flatMap(Operator.Operator, (service) => service.trace("x"))
export const live = Effect.map(Operator.Operator, (service) => service.follow())
export const streamsStatus = Effect.flatMap(Operator.Operator, (service) => service.aggregatedStreams())
export const linked = Effect.flatMap(Operator.Operator, (service) => service.linked("x", 0))
export const subscriptionsStatus = Effect.flatMap(Operator.Operator, (service) => service.subscriptions())
export const partitionsStatus = Effect.flatMap(Operator.Operator, (service) => service.partitions("x"))
export const letters = Effect.flatMap(Operator.Operator, (service) => service.parked("x"))
export const errors = Effect.flatMap(Operator.Operator, (service) => service.parkedErrors("x"))
export const projections = Effect.flatMap(Operator.Operator, (service) => service.projections())
export const scheduled = Effect.flatMap(Operator.Operator, (service) => service.scheduled())
export const operating = [Operator.layer("x"), Operator.layerOf(Tickets)]
export const pending = Operator.pendingMigrations("x")

export const dashboard = Dashboard.layer({ readOnly: false })
export const shown = (options: Dashboard.DashboardOptions) => Dashboard.layer(options)
