/** Claims by leases: the contract of subscriptions, on PostgreSQL itself, and all contracts behind a pooler. */
import { Layer } from "effect"
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

SubscriptionContract.suite("PostgreSQL with leases", layer(databaseLayer()), options)

if (isInstalled) {
  for (const contract of [MessageStoreContract, AggregatedStreamContract, SubscriptionContract]) {
    contract.suite("PostgreSQL behind PgBouncer", layer(bouncedLayer), options)
  }
} else console.log("PgBouncer is not installed: its tests are skipped")
