/** Failures of commands as one line, which says what to do. */
import { Predicate, Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { printable } from "../internal/printable.ts"

/** A command cannot go on; the reason says what to do. */
export class CommandError extends Schema.TaggedError<CommandError>("effect-message-store/cli/CommandError")(
  "CommandError",
  { reason: Schema.String }
) {
  override get message() {
    return this.reason
  }
}

/** The store is not well, and that was told. */
export class Unhealthy extends Schema.TaggedError<Unhealthy>("effect-message-store/cli/Unhealthy")("Unhealthy", {}) {}

const causeOf = ({ reason: { cause } }: SqlError): Readonly<Record<string, unknown>> => Object(cause)

const ofDatabase = (error: SqlError): string => {
  const cause = causeOf(error)
  const said = String(cause["message"] ?? error.message)
  switch (error.reason._tag) {
    case "ConnectionError":
      return `the database cannot be reached (${said}): look whether it runs, and at DATABASE_URL or --url`
    case "AuthenticationError":
      return `the database does not let this role in (${said}): look at the name and the password in DATABASE_URL or --url`
    case "AuthorizationError":
      return `${said}: this role may not do that; use one that may, or grant it`
    case "StatementTimeoutError":
      return `the database took too long (${said}): try again, or ask for less`
    case "LockTimeoutError":
      return `another transaction is in the way (${said}): try again`
    default:
      return String(cause["code"]) === "42P01" || String(cause["code"]) === "42703"
        ? `${said}: the store's database objects are of another version; run \`effect-message-store migrate\``
        : said
  }
}

/** What is to be said of a failure. */
export const toLine = (error: unknown): string => {
  if (Predicate.isTagged(error, "SqlError")) return printable(ofDatabase(error as SqlError))
  if (Predicate.isTagged(error, "SetupError")) {
    return printable(String((error as { readonly message?: unknown }).message)).replace(
      "run what `migrations` prints",
      "run `effect-message-store migrate`"
    )
  }
  const said = Predicate.hasProperty(error, "message") ? String(error.message) : String(error)
  return printable(said.replaceAll(/\s*\n\s*/g, " "))
}
