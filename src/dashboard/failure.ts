/** What is said of a failure: what went wrong, and what to do. */
import { Predicate } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { saidBy } from "../internal/refusal.ts"
import type { PageError } from "./asked.ts"

/** A failure as a page tells of it. */
export interface Told {
  readonly status: number
  readonly title: string
  /** What went wrong. */
  readonly reason: string
  /** What to do. */
  readonly advice: string
}

const ofDatabase = (error: SqlError): Told => {
  const reason = saidBy(error)
  switch (error.reason._tag) {
    case "ConnectionError":
      return {
        status: 503,
        title: "The database cannot be reached",
        reason,
        advice: "See whether it runs. This page tries again by itself."
      }
    case "AuthenticationError":
      return {
        status: 503,
        title: "The database does not let this role in",
        reason,
        advice: "Look at the name and the password that the server was started with."
      }
    case "AuthorizationError":
      return {
        status: 403,
        title: "The dashboard's role may not do that",
        reason,
        advice: "Grant it to the role, or serve the dashboard with another one. See “Rights” in the guide to operating."
      }
    case "StatementTimeoutError":
      return {
        status: 504,
        title: "The database took too long",
        reason,
        advice: "Try again, or ask for less: a narrower search, fewer rows."
      }
    case "LockTimeoutError":
      return {
        status: 409,
        title: "Another transaction is in the way",
        reason,
        advice: "Try again. The overview names transactions that are open for long."
      }
    default: {
      const cause: unknown = error.reason.cause
      const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
      return code === "42P01" || code === "42703"
        ? {
          status: 500,
          title: "The store's database objects are of another version",
          reason,
          advice: "Run “effect-message-store migrate”, or serve the dashboard with the version that made them."
        }
        : {
          status: 500,
          title: "The database refused",
          reason,
          advice: "Try again. If it stays, look at the database's log."
        }
    }
  }
}

/** What is said of a failure. */
export const toldOf = (error: PageError): Told => {
  switch (error._tag) {
    case "NotFound":
      return {
        status: 404,
        title: "Nothing is here",
        reason: error.what,
        advice: "It may have been deleted, or be of another store. Search for it."
      }
    case "SqlError":
      return ofDatabase(error)
    case "InvalidArgumentError":
      return {
        status: 400,
        title: "That cannot be asked",
        reason: error.message,
        advice: "Change what was entered, and try again."
      }
    case "InvalidNameError":
      return { status: 400, title: "That is no name", reason: error.message, advice: "Choose one from the lists." }
    case "SetupError":
      return {
        status: 500,
        title: "Database objects are missing, or old",
        reason: error.message.replace("run what `migrations` prints", "bring them up to date"),
        advice: "Run “effect-message-store migrate”."
      }
    case "VersionError":
      return {
        status: 409,
        title: "That version cannot be shown, or dropped",
        reason: error.message,
        advice: "Look at its state and progress, and try again."
      }
  }
}
