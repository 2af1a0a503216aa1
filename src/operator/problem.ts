/** What may be wrong with a store. */
import type { DateTime } from "effect"
import { Duration } from "effect"

/**
 * What is wrong:
 *
 * - `outdated`, `newer`: database objects are older than this build, which cannot work with them, or newer;
 * - `projectorDown`: nobody links messages; a warning while none waits to be linked, since it may have been stopped on purpose;
 * - `projectorBehind`: messages are linked too slowly; a warning once they have waited for half a minute;
 * - `late`, `lagging`: messages wait for too long, or too many do, though somebody handles them;
 * - `unclaimed`: messages wait, and no process has claimed their partition: a warning once they have waited for half a minute;
 * - `stuck`: a partition is claimed, and nothing was acknowledged for long;
 * - `halted`, `unknownType`: a partition does not go on because of its next message;
 * - `paused`: somebody has said so;
 * - `parked`: dead letters;
 * - `rebuilt`: the aggregated stream was rebuilt, and the subscription has to be reset;
 * - `schedulerDown`, `refused`: nobody moves scheduled messages that are due, or some cannot be written;
 * - `untagged`: messages that were stored before their tags were declared do not have them yet;
 * - `transaction`: one is open for long, so that PostgreSQL cannot clean up, and projectors look back far;
 * - `sessions`: the server has few left;
 * - `notAllowed`: this role may not look at something.
 */
export type ProblemKind =
  | "outdated"
  | "newer"
  | "projectorDown"
  | "projectorBehind"
  | "late"
  | "lagging"
  | "unclaimed"
  | "stuck"
  | "halted"
  | "unknownType"
  | "paused"
  | "parked"
  | "rebuilt"
  | "schedulerDown"
  | "refused"
  | "untagged"
  | "transaction"
  | "sessions"
  | "notAllowed"

/** Something that is wrong. */
export interface Problem {
  readonly kind: ProblemKind
  /** A warning leaves the store healthy. */
  readonly severity: "error" | "warning"
  /** Of what: the name of the store, an aggregated stream, a subscription; or `"database"`. */
  readonly of: string
  readonly partition: number | undefined
  readonly since: DateTime.Utc | undefined
  /** A sentence, on one line. */
  readonly message: string
}

interface More {
  readonly severity?: Problem["severity"]
  readonly partition?: number | undefined
  readonly since?: DateTime.Utc | undefined
}

export const problem = (of: string, kind: ProblemKind, message: string, more: More = {}): Problem => ({
  kind,
  severity: more.severity ?? "error",
  of,
  partition: more.partition,
  since: more.since,
  message
})

/** What nobody has taken up for so long is told as a warning: projectors and workers come to it within seconds. */
const slow = Duration.seconds(30)

/** What has lasted for longer than the bound is an error; for half a minute, a warning. */
export const ifLong = (
  lasted: Duration.Duration,
  bound: Duration.Duration,
  tell: (severity: Problem["severity"]) => Problem
) =>
  Duration.isGreaterThan(lasted, Duration.min(bound, slow))
    ? [tell(Duration.isGreaterThan(lasted, bound) ? "error" : "warning")]
    : []

export const toText = (duration: Duration.Duration): string => {
  const seconds = Math.floor(Duration.toSeconds(duration))
  const [days, hours, minutes] = [
    Math.floor(seconds / 86_400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60
  ]
  if (days > 0) return `${days} d ${hours} h`
  if (hours > 0) return `${hours} h ${minutes} min`
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`
}
