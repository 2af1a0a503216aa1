/**
 * Whether names are free: no relation of another kind stands where the objects of a store, an aggregated stream or a
 * subscription are, or would be. What Python made keeps its name, whatever that ends in.
 */
import { Effect, Result } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, type UnsupportedEngineError } from "../errors.ts"
import { checkEnding, type Named } from "../internal/names.ts"
import { alone } from "./client/gathered.ts"
import { probe, type Probed, probing } from "./engine.ts"
import * as Objects from "./objects.ts"
import * as Standing from "./standing.ts"

/** A relation of depeche_db's, and a column that only this one has; sequences have none of ours. */
type Expected = readonly [relation: string, kind: "r" | "S", column: string]

/** What has to be known of a name, and what is made of that. */
export interface Naming {
  readonly wanted: ReadonlyArray<Standing.Wanted>
  readonly judge: (found: Standing.Found) => Result.Result<unknown, InvalidNameError>
}

const naming = (
  named: Named,
  identifier: string,
  expected: ReadonlyArray<Expected>,
  other?: { readonly table: string; readonly owner: string }
): Naming => ({
  wanted: [
    ...expected.map(([relation, , column]): Standing.Wanted => [relation, column]),
    ...other === undefined ? [] : [[other.table] as const]
  ],
  judge: (found) => {
    // A store and a stream of one name would share depeche_db's channel.
    if (other !== undefined && found.has(other.table)) {
      return Result.fail(new InvalidNameError({ identifier, reason: `is taken by ${other.owner}` }))
    }
    const wrong = expected.find(([relation, kind]) => {
      const one = found.get(relation)
      return one !== undefined && !(one.kind === kind && one.hasColumn)
    })
    if (wrong !== undefined) {
      return Result.fail(
        new InvalidNameError({
          identifier,
          reason: `cannot name the ${named}: ${wrong[0]} is something else in this database`
        })
      )
    }
    const isThere = expected[0] !== undefined && found.has(expected[0][0])
    return isThere ? Result.void : checkEnding(named, identifier)
  }
})

const storeNaming = ({ name, sequence, table }: Objects.Objects): Naming =>
  naming("store", name, [[table, "r", "message"], [sequence, "S", "last_value"]], {
    table: `depeche_stream_${name}`,
    owner: "an aggregated stream"
  })

export const streamNaming = (name: string, { maximumTable, table }: Objects.StreamObjects): Naming =>
  naming("aggregated stream", name, [[table, "r", "origin_stream"], [maximumTable, "r", "max_position"]], {
    table: `depeche_msgs_${name}`,
    owner: "a message store"
  })

export const subscriptionNaming = ({ name, table }: Objects.SubscriptionObjects): Naming =>
  naming("subscription", name, [[table, "r", "subscription_name"]])

/** Answers which relations there are: those that were looked for, and one more that is asked about. */
type Check = (name: string, also?: string) => Effect.Effect<
  Standing.Found,
  InvalidNameError | SqlError,
  SqlClient.SqlClient
>

const check = Effect.fnUntraced(function*(
  { judge, wanted }: Naming,
  also: string | undefined
): Effect.fn.Return<Standing.Found, InvalidNameError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const all = also === undefined ? wanted : [...wanted, [also] as const]
  const found = yield* Standing.make(sql, alone).relations(all)
  yield* Effect.fromResult(judge(found))
  return found
})

/** The first statement of a store's layer tells whether this is PostgreSQL. */
export const checkStoreName = (
  name: string,
  also?: string
): Effect.Effect<Standing.Found, InvalidNameError | UnsupportedEngineError | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const objects = yield* Effect.fromResult(Objects.forStore(name))
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    yield* probing(sql, sql<Probed>`select ${sql.literal(probe)}`)
    return yield* check(storeNaming(objects), also)
  })

export const checkStreamName: Check = (name, also) =>
  Effect.flatMap(Effect.fromResult(Objects.forStream(name)), (objects) => check(streamNaming(name, objects), also))

export const checkSubscriptionName: Check = (name, also) =>
  Effect.flatMap(
    Effect.fromResult(Objects.forSubscription(name)),
    (objects) => check(subscriptionNaming(objects), also)
  )
