/**
 * The contracts behind a pooler, with claims by leases. (On PostgreSQL itself, all that subscriptions do runs on leases in
 * `driverTypes.test.ts`.)
 */
import { Effect, Layer } from "effect"
import { Storage } from "effect-message-store"
import { AggregatedStreamContract } from "effect-message-store/testing"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { archives } from "../src/testing/messageStore/archives.ts"
import { conditions } from "../src/testing/messageStore/conditions.ts"
import { deadlocks } from "../src/testing/messageStore/deadlocks.ts"
import { deciding } from "../src/testing/messageStore/deciding.ts"
import { forgetting } from "../src/testing/messageStore/forgetting.ts"
import { reading } from "../src/testing/messageStore/reading.ts"
import { scheduling } from "../src/testing/messageStore/scheduling.ts"
import { snapshots } from "../src/testing/messageStore/snapshots.ts"
import { synchronizing } from "../src/testing/messageStore/synchronizing.ts"
import { taggedPages } from "../src/testing/messageStore/taggedPages.ts"
import { tagging } from "../src/testing/messageStore/tagging.ts"
import { tags } from "../src/testing/messageStore/tags.ts"
import { together } from "../src/testing/messageStore/together.ts"
import { transactions } from "../src/testing/messageStore/transactions.ts"
import { updating } from "../src/testing/messageStore/updating.ts"
import { writing } from "../src/testing/messageStore/writing.ts"
import { claiming } from "../src/testing/subscription/claiming.ts"
import { draining } from "../src/testing/subscription/draining.ts"
import { handling } from "../src/testing/subscription/handling.ts"
import { pausing } from "../src/testing/subscription/pausing.ts"
import { requeueing } from "../src/testing/subscription/requeueing.ts"
import { resetting } from "../src/testing/subscription/resetting.ts"
import { stopping } from "../src/testing/subscription/stopping.ts"
import { makeSuite } from "../src/testing/suite.ts"
import { bouncedLayer, isInstalled } from "./support/pgbouncer.ts"

/** Claims by session are a fault there: see `pooled.test.ts`. */
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

const layer = withoutSessions.pipe(
  Layer.provide(PostgresStorage.layer("contract")),
  Layer.provide(Layer.effectDiscard(Migrations.run("contract"))),
  Layer.provide(bouncedLayer)
)

const name = "PostgreSQL behind PgBouncer"
const options = { claims: { lease: "2 seconds" } } as const

if (isInstalled) {
  // A pooler changes what belongs to a session: locks, prepared statements, snapshots that are held, notifications, and who
  // has a partition. The other parts send statements of their own, or transactions, of which each has one session.
  makeSuite("message store", {
    writing,
    synchronizing,
    updating,
    deciding,
    "deciding together": together,
    reading,
    "pages of tags": taggedPages,
    forgetting,
    transactions,
    snapshots,
    conditions: (it, more) => {
      conditions(it, more)
      deadlocks(it, more)
    },
    tags,
    scheduling,
    tagging,
    archives
  })(name, layer, options)
  AggregatedStreamContract.suite(name, layer, options)
  makeSuite("subscriptions", { handling, claiming, resetting, pausing, draining, requeueing, stopping })(name, layer, {
    ...options,
    freshParts: true
  })
} else console.log("PgBouncer is not installed: its tests are skipped")
