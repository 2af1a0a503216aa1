/** What the tests of projections share. */
import { Effect, Fiber, Latch, Option, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import type * as Projection from "../../Projection.ts"
import { state } from "../../projection/model.ts"
import type { State } from "../../Storage.ts"
import {
  Accounts,
  ClaimsOption,
  type ContractOptions,
  deposits,
  hurried,
  newStream,
  type ReadModel
} from "../fixture.ts"
import { type Account, until } from "../subscription/fixture.ts"

type Counts = ReadonlyMap<string, number>

const inMemory: ReadModel = {
  model: () => state((): Counts => new Map()),
  add: (model, messageIds) =>
    Effect.orDie((model as State<Counts>).update((counts) => {
      const added = new Map(counts)
      for (const each of messageIds) added.set(each, (added.get(each) ?? 0) + 1)
      return added
    })),
  counts: (model) => (model as State<Counts>).get
}

let projections = 0

/** A stream of origin streams that begin with `prefix`, each in a partition of its own, and projections of it. */
export const project = Effect.fnUntraced(function*({ readModel }: ContractOptions) {
  const accounts = yield* Accounts
  const claims = yield* ClaimsOption
  const client = yield* Effect.serviceOption(SqlClient.SqlClient)
  const kept = Option.isSome(client) && readModel !== undefined ? readModel(client.value) : inMemory
  const prefix = newStream()
  const name = `projection_${++projections}`
  const stream = yield* accounts.aggregatedStream({
    name: `projected_${projections}`,
    patterns: `${prefix}-%`,
    partitioner: (stored) => Number(stored.stream.slice(stored.stream.lastIndexOf("-") + 1))
  })
  const make = (version: number, options?: Partial<Projection.Options<unknown>>) =>
    stream.projection({
      name,
      version,
      model: kept.model(`counts_${name}`),
      claims,
      retry: Schedule.spaced("20 millis"),
      ...options
    })

  return {
    accounts,
    stream,
    name,
    kept,
    make,
    origin: (partition: number) => `${prefix}-${partition}`,
    /** Writes to the stream of a partition, and links it. */
    write: Effect.fnUntraced(function*(partition: number, count: number) {
      const at = yield* accounts.write(`${prefix}-${partition}`, deposits(count))
      yield* stream.projector.runOnce
      return at
    }),
    /** Handles messages, once the gate is open. It waits for that outside of transactions. */
    run: (projection: Projection.Projection<Account, unknown>, gate: Latch.Latch = Latch.makeUnsafe(true)) =>
      projection.run((deliveries, model) =>
        Effect.andThen(
          gate.isOpen() ? Effect.void : Effect.fail("closed"),
          kept.add(model, deliveries.map(({ messageId }) => messageId))
        )
      ),
    /** How many messages a version has, and whether each was counted once. */
    counted: (model: unknown) =>
      Effect.map(kept.counts(model), (counts) => ({
        messages: counts.size,
        once: Array.from(counts.values()).every((count) => count === 1)
      }))
  }
})

/** Of the version that readers see. */
export const promotedVersion = (projection: Projection.Projection<Account, unknown>) =>
  Effect.map(
    Effect.option(projection.promoted),
    Option.match({ onNone: () => undefined, onSome: ({ version }) => version })
  )

/** Until readers see the version of a projection. */
export const untilPromoted = (projection: Projection.Projection<Account, unknown>) =>
  until(Effect.map(promotedVersion(projection), (version) => version === projection.version))

/** As long as a version in the background takes to look some times whether it can be promoted: for those that must not be. */
export const someLooks = Effect.sleep("200 millis")

/** Runs an effect in the background of others, in a hurry; it ends with the test. */
export const background = <A, E, R>(running: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.forkScoped(hurried(running)), (fiber) => ({
    /** Fails as it fails. */
    untilItFails: Fiber.join(fiber),
    stop: Fiber.interrupt(fiber)
  }))
