/** What a projection keeps its versions in. */
import type { Effect } from "effect"
import type { State } from "../Storage.ts"

/** Tables of a database, made for each version. */
export interface Tables<out Names extends string, out E, out R> {
  readonly _tag: "Tables"
  readonly tables: ReadonlyArray<Names>
  readonly create: (names: TableNames<string>) => Effect.Effect<unknown, E, R>
}

/** A value in memory, of each version one. */
export interface Value<out S> {
  readonly _tag: "Value"
  readonly initial: () => S
}

/** The names that tables have in a version, by what they are called: `{ balances: "balances_v2" }`. */
export type TableNames<Names extends string> = { readonly [Name in Names]: string }

/**
 * What a projection keeps its versions in: {@link tables}, or {@link state} in memory. `M` is what handlers and readers
 * get of a version; `E` and `R` are those of the effect that makes it.
 */
export interface Model<out M, out E = never, out R = never> {
  readonly kept: Tables<string, E, R> | Value<unknown>
  /** Only for the type checker: there is no such value. */
  readonly "~effect-message-store/Projection/Model"?: M
}

/**
 * Tables. Each has the name given with the version behind it, and readers find it as a view of the name given, which shows
 * the version that is promoted: `balances_v2`, as `balances`.
 *
 * **Details**
 *
 * `create` makes them: once for each version, in the transaction that notes the version, with the `SqlClient` of the store.
 * All of them have to be made, in one schema, as tables. Names have 1 to 52 of `a-z`, `0-9` and `_`, and do not begin with
 * a digit.
 *
 * **Example**
 *
 * ```ts
 * Projection.tables(["balances"], ({ balances }) =>
 *   Effect.flatMap(SqlClient.SqlClient, (sql) =>
 *     sql`create table ${sql(balances)} (account text primary key, cents bigint not null)`))
 * ```
 */
export const tables = <const Names extends string, E, R>(
  names: ReadonlyArray<Names>,
  create: (names: TableNames<Names>) => Effect.Effect<unknown, E, R>
): Model<TableNames<Names>, E, R> => ({ kept: { _tag: "Tables", tables: names, create } })

/**
 * A value in memory, for stores in memory: a new one for each version. A handler changes it in its transaction; the change
 * is seen by others when the messages are acknowledged, and is undone if they are not. Values are replaced, never changed
 * in place.
 *
 * **Example**
 *
 * ```ts
 * Projection.state(() => new Map<string, number>())
 * ```
 */
export const state = <S>(initial: () => S): Model<State<S>> => ({ kept: { _tag: "Value", initial } })
