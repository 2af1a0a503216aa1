/**
 * All contracts on clients whose `types` decode, and encode, times and JSON in ways of their own, and take no int8 at all:
 * the library has to ask for what it needs.
 */
import { PgClient, PgTypes } from "@effect/sql-pg"
import { Effect, Layer, Result } from "effect"
import { AggregatedStreamContract, SubscriptionContract } from "effect-message-store/testing"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { conditions } from "../src/testing/messageStore/conditions.ts"
import { deciding } from "../src/testing/messageStore/deciding.ts"
import { deleting } from "../src/testing/messageStore/deleting.ts"
import { editions } from "../src/testing/messageStore/editions.ts"
import { forgetting } from "../src/testing/messageStore/forgetting.ts"
import { pages } from "../src/testing/messageStore/pages.ts"
import { personal } from "../src/testing/messageStore/personal.ts"
import { personalKeys } from "../src/testing/messageStore/personalKeys.ts"
import { reading } from "../src/testing/messageStore/reading.ts"
import { redacting } from "../src/testing/messageStore/redacting.ts"
import { rememberedStates } from "../src/testing/messageStore/rememberedStates.ts"
import { scheduling } from "../src/testing/messageStore/scheduling.ts"
import { taggedSnapshots } from "../src/testing/messageStore/taggedSnapshots.ts"
import { tagging } from "../src/testing/messageStore/tagging.ts"
import { tags } from "../src/testing/messageStore/tags.ts"
import { writing } from "../src/testing/messageStore/writing.ts"
import { handling } from "../src/testing/subscription/handling.ts"
import { pausing } from "../src/testing/subscription/pausing.ts"
import { makeSuite } from "../src/testing/suite.ts"
import { databaseLayer } from "./support/database.ts"

type Codec<A> = PgTypes.Codec<A>

/** Takes what it accepts, and nothing else. */
const codec = <A>(
  oid: number,
  decode: (value: unknown) => A,
  encode: (value: A) => unknown,
  accepts: (value: A) => boolean
): Codec<A> => ({
  decode: (bytes) => Result.map(PgTypes.decode(bytes, oid, 1), decode),
  encode: (value) =>
    accepts(value)
      ? PgTypes.encode(encode(value), oid)
      : Result.fail(new PgTypes.CodecError({ message: `not for ${typeof value}` }))
})

const isString = (value: unknown) => typeof value === "string"

const registry = (int8: Codec<number> | Codec<string>): PgTypes.Registry => {
  const types = PgTypes.makeRegistry()
  types.register(PgTypes.OID.int8, int8 as Codec<unknown>, { arrayOid: 1016 })
  for (const [oid, arrayOid] of [[PgTypes.OID.timestamptz, 1185], [PgTypes.OID.timestamp, 1115]] as const) {
    const time = codec<string>(oid, (date) => `at ${String(date)}`, (text) => text, isString)
    types.register(oid, time, { arrayOid })
  }
  for (const [oid, arrayOid] of [[PgTypes.OID.json, 199], [PgTypes.OID.jsonb, 3807]] as const) {
    types.register(oid, codec<string>(oid, (value) => JSON.stringify(value), JSON.parse, isString), { arrayOid })
  }
  return types
}

const asNumber = codec<number>(PgTypes.OID.int8, Number, BigInt, () => false)
const asText = codec<string>(PgTypes.OID.int8, String, BigInt, () => false)

const layer = (types: PgTypes.Registry) =>
  PostgresStorage.layer("contract").pipe(
    Layer.provide(Layer.effectDiscard(Migrations.run("contract"))),
    Layer.provide(
      Layer.unwrap(Effect.map(PgClient.PgClient, ({ config }) => PgClient.layer({ ...config, types }))).pipe(
        Layer.provide(databaseLayer())
      )
    )
  )

const numbers = "PostgreSQL with int8 as number, times and JSON as text"

// What differs is how parameters are encoded and rows are decoded. These parts, together, run every statement; the others run
// none that these do not run.
makeSuite("message store", {
  writing,
  deciding,
  reading,
  pages,
  "personal fields": personal,
  "keys of subjects": personalKeys,
  forgetting,
  conditions,
  tags,
  deleting,
  redacting,
  editions,
  scheduling,
  "remembered states": rememberedStates,
  "snapshots of tags": taggedSnapshots,
  tagging
})(numbers, layer(registry(asNumber)))
AggregatedStreamContract.suite(numbers, layer(registry(asNumber)))
// Claims by sessions; everything else that subscriptions do runs below.
makeSuite("subscriptions", { handling, pausing })(numbers, layer(registry(asNumber)), { freshParts: true })
// Nowhere else does all that subscriptions do run on leases.
SubscriptionContract.suite("PostgreSQL with leases, and int8 as text", layer(registry(asText)), {
  claims: { lease: "2 seconds" },
  freshParts: true
})
