/** The bounds by which the health of a store is judged, with their defaults. */
import { type Duration, Result } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { checkDuration, checkWhole, invalid } from "../internal/checks.ts"

/** What is beyond one of these is a problem. */
export interface HealthBounds {
  /** How many messages a subscription may be behind; 0 or more. Default: any number. */
  readonly lag?: number | undefined
  /** How long a message may wait to be linked, handled, or moved into its stream when it is due. Default 5 minutes. */
  readonly age?: Duration.Input | undefined
  /** How long ago a projector may have looked last. Default 1 minute; projectors note it every 10 seconds. */
  readonly projector?: Duration.Input | undefined
  /** How long a claim may be without progress while messages wait. Default 5 minutes. */
  readonly progress?: Duration.Input | undefined
  /** How many parked messages a subscription may have; 0 or more. Default 0. */
  readonly parked?: number | undefined
  /** How long a transaction may be open. Default 15 minutes. */
  readonly transaction?: Duration.Input | undefined
  /** The share of the sessions that the server allows which may be open, from 0 to 1. Default 0.9. */
  readonly sessions?: number | undefined
}

export interface Bounds {
  readonly lag: number
  readonly age: Duration.Duration
  readonly projector: Duration.Duration
  readonly progress: Duration.Duration
  readonly parked: number
  readonly transaction: Duration.Duration
  readonly sessions: number
}

export const checkBounds = ({
  age = "5 minutes",
  lag = Number.MAX_SAFE_INTEGER,
  parked = 0,
  progress = "5 minutes",
  projector = "1 minute",
  sessions = 0.9,
  transaction = "15 minutes"
}: HealthBounds): Result.Result<Bounds, InvalidArgumentError> =>
  Result.all({
    lag: checkWhole("lag", lag, 0),
    age: checkDuration("age", age),
    projector: checkDuration("projector", projector),
    progress: checkDuration("progress", progress),
    parked: checkWhole("parked", parked, 0),
    transaction: checkDuration("transaction", transaction),
    sessions: sessions >= 0 && sessions <= 1 ? Result.succeed(sessions) : invalid("sessions", "must be from 0 to 1")
  })
