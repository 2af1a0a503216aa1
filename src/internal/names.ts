/**
 * The names of stores, aggregated streams, subscriptions and projections, which are part of the names of database objects.
 *
 * depeche_db puts them between fixed words; PostgreSQL cuts identifiers off at 63 bytes. So a name may be as long as
 * depeche_db's own names leave room for. And none may end in the words that another name's objects end in: the table of a
 * stream `x_maxpos` would be the one in which the stream `x` keeps its last positions.
 */
import { Result } from "effect"
import { InvalidNameError } from "../errors.ts"

export type Named = "store" | "aggregated stream" | "subscription" | "projection"

/**
 * What depeche_db's longest name leaves: `depeche_msgs_{}_global_seq`, `depeche_stream_new_msg_{}`, `depeche_subscriptions_{}`;
 * of the last one, for a projection, `depeche_subscriptions_{}_v{version}`.
 */
const longest: Readonly<Record<Named, number>> = {
  store: 39,
  "aggregated stream": 40,
  subscription: 41,
  projection: 30
}

const endings: Readonly<Record<Named, ReadonlyArray<string>>> = {
  store: ["_global_seq", "_version_uq", "_global_position_key", "_pkey"],
  "aggregated stream": ["_maxpos", "_uq", "_pkey"],
  subscription: ["_pkey"],
  projection: []
}

/** Whether objects can have the name. */
export const checkName = (named: Named, name: string): Result.Result<string, InvalidNameError> =>
  name.length <= longest[named] && /^[a-z_][a-z0-9_]*$/.test(name)
    ? Result.succeed(name)
    : Result.fail(
      new InvalidNameError({
        identifier: name,
        reason: `must have 1 to ${longest[named]} of a-z, 0-9 and _, and not begin with a digit`
      })
    )

/** Whether its objects would have the names of another's. */
export const checkEnding = (named: Named, name: string): Result.Result<string, InvalidNameError> => {
  const ending = endings[named].find((each) => name.endsWith(each))
  return ending === undefined ? Result.succeed(name) : Result.fail(
    new InvalidNameError({
      identifier: name,
      reason: `must not end in ${ending}: so do names of the database objects of a ${named} "${
        name.slice(0, -ending.length)
      }"`
    })
  )
}

/** The highest version of a projection: what is left for it of the name of its subscription. */
export const highestVersion = 999_999_999

/** Names of tables and views of a projection: 1 to 52 characters, which leave room for `_v{version}`. */
export const checkTableName = (projection: string, table: string): Result.Result<string, InvalidNameError> =>
  table.length <= 52 && /^[a-z_][a-z0-9_]*$/.test(table)
    ? Result.succeed(table)
    : Result.fail(
      new InvalidNameError({
        identifier: table,
        reason:
          `cannot name a table of "${projection}": it must have 1 to 52 of a-z, 0-9 and _, and not begin with a digit`
      })
    )
