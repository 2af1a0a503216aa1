/**
 * All contracts on clients whose `types` decode, and encode, int8, times and JSON in ways of their own: the library has to
 * ask for what it needs.
 */
import { PgClient, PgTypes } from "@effect/sql-pg"
import { Effect, Layer, Result } from "effect"
import { AggregatedStreamContract, MessageStoreContract, SubscriptionContract } from "effect-message-store/testing"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { databaseLayer } from "./support/database.ts"

type Codec<A> = PgTypes.Codec<A>

/** Takes what it gives, and nothing else. */
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

const asNumber = codec<number>(PgTypes.OID.int8, Number, BigInt, (value) => typeof value === "number")
const asText = codec<string>(PgTypes.OID.int8, String, BigInt, isString)

const layer = (types: PgTypes.Registry) =>
  PostgresStorage.layer("contract").pipe(
    Layer.provide(Layer.effectDiscard(Migrations.run("contract"))),
    Layer.provide(
      Layer.unwrap(Effect.map(PgClient.PgClient, ({ config }) => PgClient.layer({ ...config, types }))).pipe(
        Layer.provide(databaseLayer())
      )
    )
  )

for (const contract of [MessageStoreContract, AggregatedStreamContract, SubscriptionContract]) {
  contract.suite("PostgreSQL with int8 as number, times and JSON as text", layer(registry(asNumber)))
}
SubscriptionContract.suite("PostgreSQL with leases, and int8 as text", layer(registry(asText)), {
  claims: { lease: "2 seconds" }
})
