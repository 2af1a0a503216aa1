/**
 * The names of stores, aggregated streams and subscriptions, which are part of the names of database objects.
 *
 * depeche_db puts them between fixed words; PostgreSQL cuts identifiers off at 63 bytes. So a name may be as long as
 * depeche_db's own names leave room for. And none may end in the words that another name's objects end in: the table of a
 * stream `x_maxpos` would be the one in which the stream `x` keeps its last positions.
 */
import { Result } from "effect"
import { InvalidNameError } from "../errors.ts"

export type Named = "store" | "aggregated stream" | "subscription"

/** What depeche_db's longest name leaves: `depeche_msgs_{}_global_seq`, `depeche_stream_new_msg_{}`, `depeche_subscriptions_{}`. */
const longest: Readonly<Record<Named, number>> = { store: 39, "aggregated stream": 40, subscription: 41 }

const endings: Readonly<Record<Named, ReadonlyArray<string>>> = {
  store: ["_global_seq", "_version_uq", "_global_position_key", "_pkey"],
  "aggregated stream": ["_maxpos", "_uq", "_pkey"],
  subscription: ["_pkey"]
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
