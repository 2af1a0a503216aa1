/** What the database refuses, since the role lacks a right. */
import { Effect, Predicate } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { SetupError } from "../errors.ts"
import { printable } from "./printable.ts"

/** Whether the database has said that the role may not. */
export const isForbidden = (error: unknown): error is SqlError =>
  Predicate.isTagged(error, "SqlError") && (error as SqlError).reason._tag === "AuthorizationError"

/** What the database itself says of a failure. */
export const saidBy = ({ message, reason: { cause } }: SqlError): string =>
  printable(Predicate.hasProperty(cause, "message") ? String(cause.message) : message)

/** Opens something by this name: a right that is lacking is told with where the rights are listed. */
export const permitted =
  (identifier: string) => <A, E, R>(opening: Effect.Effect<A, E, R>): Effect.Effect<A, E | SetupError, R> =>
    Effect.catchIf(opening, isForbidden, (error) =>
      Effect.fail(
        new SetupError({
          identifier,
          reason: `cannot be opened by this role: ${
            saidBy(error as SqlError)
          }: grant it what docs/operating.md lists (Roles and grants)`
        })
      ))
