/** Claims by leases: the contract of subscriptions, on PostgreSQL itself, and all contracts behind a pooler. */
import { Effect, Layer } from "effect"
import { Storage } from "effect-message-store"
import { AggregatedStreamContract, MessageStoreContract, SubscriptionContract } from "effect-message-store/testing"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { databaseLayer } from "./support/database.ts"
import { bouncedLayer, isInstalled } from "./support/pgbouncer.ts"

const options = { claims: { lease: "2 seconds" } } as const

const layer = (database: ReturnType<typeof databaseLayer>) =>
  PostgresStorage.layer("contract").pipe(
    Layer.provide(Layer.effectDiscard(Migrations.run("contract"))),
    Layer.provide(database)
  )

/**
 * Claims by session are a fault there, though most of them go well: a lock that is given back in another session than the one
 * that took it stays, and its partition waits for ever.
 */
const withoutSessions = Layer.effect(
  Storage.Storage,
  Effect.map(Storage.Storage, (storage) =>
    Storage.Storage.of({
      ...storage,
      aggregatedStream: (definition) =>
        Effect.map(storage.aggregatedStream(definition), (stream) => ({
          ...stream,
          subscription: (name) =>
            Effect.map(stream.subscription(name), (subscribed) => ({
              ...subscribed,
              claims: (mode, label) =>
                mode._tag === "Lease"
                  ? subscribed.claims(mode, label)
                  : Effect.die(new Error(`subscription ${name} claims by session, behind a pooler`))
            }))
        }))
    }))
)

SubscriptionContract.suite("PostgreSQL with leases", layer(databaseLayer()), options)

if (isInstalled) {
  for (const contract of [MessageStoreContract, AggregatedStreamContract, SubscriptionContract]) {
    contract.suite(
      "PostgreSQL behind PgBouncer",
      withoutSessions.pipe(Layer.provide(layer(bouncedLayer))),
      options
    )
  }
} else console.log("PgBouncer is not installed: its tests are skipped")
