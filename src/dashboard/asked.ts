/** What is asked of a page, and what it answers. */
import { Effect, Result } from "effect"
import type { DateTime } from "effect"
import type { HttpServerResponse } from "effect/http"
import { InvalidArgumentError } from "../errors.ts"
import type { OperatorError, OperatorService, PromotionError } from "../Operator.ts"
import type { Content } from "./html.ts"
import type { Live } from "./live.ts"

/** The parameters of a URL, or of a form that was sent. */
export interface Query {
  /** As it is; undefined if it is not there, or empty. */
  readonly text: (name: string) => string | undefined
  /** What somebody has typed, without the blanks around it. */
  readonly typed: (name: string) => string | undefined
  /** All values of that name that are not empty. */
  readonly all: (name: string) => ReadonlyArray<string>
  readonly whole: (name: string) => Effect.Effect<number | undefined, InvalidArgumentError>
}

export const makeQuery = (parameters: URLSearchParams): Query => {
  const unlessEmpty = (value: string | null | undefined) => value === null || value === "" ? undefined : value
  const typed = (name: string) => unlessEmpty(parameters.get(name)?.trim())
  return {
    text: (name) => unlessEmpty(parameters.get(name)),
    typed,
    all: (name) => parameters.getAll(name).filter((value) => value !== ""),
    whole: (name) => {
      const value = typed(name)
      if (value === undefined) return Effect.succeed(undefined)
      return /^\d{1,15}$/.test(value)
        ? Effect.succeed(Number(value))
        : Effect.fail(new InvalidArgumentError({ argument: name, reason: "must be a whole number, 0 or more" }))
    }
  }
}

/** What leads to a page of the dashboard. */
export type Link = (
  page: string,
  query?: Readonly<Record<string, string | number | undefined>>
) => string

/** Where names may have any characters, they are parameters: a path would change some of them. */
export const makeLink = (mount: string): Link => (page, query = {}) => {
  const given = Object.entries(query).flatMap(([name, value]): ReadonlyArray<[string, string]> =>
    value === undefined || value === "" ? [] : [[name, String(value)]]
  )
  const path = page === "/" ? mount || "/" : `${mount}${page}`
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given).toString()}`
}

/** A request for a page. */
export interface Asked {
  readonly operator: OperatorService
  readonly live: Live
  readonly link: Link
  readonly query: Query
  /** The part of the path that names what the page is of. */
  readonly id: string
  /** The path and the query of this page. */
  readonly here: string
  readonly now: DateTime.Utc
  /** Whether there are actions. */
  readonly canAct: boolean
  /** What a form has to send back. */
  readonly formToken: string
}

/** The pages that the navigation leads to. */
export type Section =
  | "overview"
  | "streams"
  | "messages"
  | "aggregated-streams"
  | "subscriptions"
  | "parked"
  | "projections"
  | "scheduled"

/** A page. */
export interface View {
  readonly title: string
  readonly section: Section | undefined
  readonly body: Content
  /** Whether it is read again when something has changed. */
  readonly isLive: boolean
  readonly status?: number | undefined
}

/** There is nothing of that name; the reason says what to do. */
export class NotFound {
  readonly _tag = "NotFound"
  readonly what: string
  constructor(what: string) {
    this.what = what
  }
}

export type PageError = OperatorError | PromotionError | NotFound

export type Page = (asked: Asked) => Effect.Effect<View | HttpServerResponse.HttpServerResponse, PageError>

/** A parameter that has to be there. */
export const required = (name: string, value: string | undefined): Effect.Effect<string, InvalidArgumentError> =>
  Effect.fromResult(
    value === undefined
      ? Result.fail(new InvalidArgumentError({ argument: name, reason: "is missing" }))
      : Result.succeed(value)
  )
