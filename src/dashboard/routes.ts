/** Leads requests to pages and actions, past what is asked of each: the host, the session, the form. */
import { ByteSize, Cause, DateTime, Duration, Effect, Semaphore } from "effect"
import type { Redacted, Scope } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import type { OperatorService } from "../Operator.ts"
import * as Actions from "./actions.ts"
import { type Asked, makeLink, makeQuery, NotFound, type Page, type PageError, type View } from "./asked.ts"
import * as Assets from "./assets.ts"
import * as Events from "./events.ts"
import { type Told, toldOf } from "./failure.ts"
import type { Html } from "./html.ts"
import * as Layout from "./layout.ts"
import * as Live from "./live.ts"
import { pages, pagesOfMessages } from "./pages.ts"
import * as Security from "./security.ts"

export interface Options {
  /** Without a slash at its end: empty at the root. */
  readonly mount: string
  readonly canAct: boolean
  readonly token: Redacted.Redacted | undefined
  /** Undefined: any. */
  readonly hosts: ReadonlyArray<string> | undefined
  readonly pollInterval: Duration.Duration
}

type Response = HttpServerResponse.HttpServerResponse

/** So many pages are made at the same time: each takes a connection of the pool. */
const mostAtOnce = 4

/** How long a page, and an action, may take. */
const longest = "30 seconds"
const longestAction = "2 minutes"

/** A form may be this large: thousands of marked messages. */
const largestForm = ByteSize.mebibytes(1)

const toldCookie = "effect-message-store-told"

const wrongHost: Told = {
  status: 421,
  title: "This dashboard is not of this host",
  reason: "It is served on loopback, or for hosts that were named, and your browser has asked for another one",
  advice: "Open it by its own address. Who serves it names other hosts with `hosts`."
}

const wrongForm: Told = {
  status: 403,
  title: "This form is not of this browser",
  reason: "It came from another site, or from a page that was loaded before cookies were removed",
  advice: "Go back, load the page again, and send it once more. The dashboard needs cookies."
}

const readOnly: Told = {
  status: 403,
  title: "This dashboard only shows",
  reason: "It was served without actions",
  advice: "Serve it with `readOnly: false`, or with `--actions` on the command line."
}

const tooLarge: Told = {
  status: 413,
  title: "That form is too large",
  reason: "It could not be read",
  advice: "Mark fewer messages at once."
}

const tooLong: Told = {
  status: 504,
  title: "That took too long",
  reason: "The page was given up",
  advice: "Try again, or ask for less."
}

const tooLongAction: Told = {
  status: 504,
  title: "That took too long",
  reason: "It was ended, and may have been done in part",
  advice: "Look at what is left, and do it again."
}

const broken: Told = {
  status: 500,
  title: "The dashboard has failed",
  reason: "This is a fault of its own; the log of the server tells more",
  advice: "Try again, and please report it if it stays."
}

export const make = Effect.fnUntraced(function*(
  operator: OperatorService,
  { canAct, hosts, mount, pollInterval, token }: Options
): Effect.fn.Return<(request: HttpServerRequest.HttpServerRequest) => Effect.Effect<Response>, never, Scope.Scope> {
  const link = makeLink(mount)
  const { files, version } = Assets.load()
  const live = yield* Live.make(operator, pollInterval)
  const events = Events.make(live)
  const few = yield* Semaphore.make(mostAtOnce)
  const sessions = token && Security.makeSessions(token)

  /** Where a form leads back to: a page of this dashboard, whatever it says. */
  const backOf = (back: string | undefined): string => {
    const url = URL.parse(back ?? "", "http://dashboard")
    const isOwn = url !== null && url.origin === "http://dashboard" &&
      (url.pathname === (mount || "/") || url.pathname.startsWith(`${mount}/`))
    return isOwn && !url.pathname.startsWith("//") ? `${url.pathname}${url.search}` : link("/")
  }

  const handle = Effect.fnUntraced(function*(
    request: HttpServerRequest.HttpServerRequest
  ): Effect.fn.Return<Response> {
    const { cookies, headers, method } = request
    const url = URL.parse(request.url.replace(/^[/\\]+/, "/"), "http://dashboard") ?? new URL("http://dashboard/")
    // One slash at its beginning: with two it would name another host, as `/.//name` does once it is parsed.
    const path = url.pathname.replace(/^\/+/, "/")
    const now = yield* DateTime.now
    const form = Security.formTokenOf(cookies[Security.formCookie])
    const ofCookie = {
      path: mount || "/",
      httpOnly: true,
      sameSite: "strict",
      secure: Security.isSecure(request)
    } as const
    const hasSession = sessions !== undefined && sessions.isOpen(cookies[sessions.cookie], now)

    const page = (markup: Html, status: number): Response => {
      const response = HttpServerResponse.text(markup.toString(), {
        status,
        contentType: "text/html; charset=utf-8"
      })
      return form.isNew
        ? HttpServerResponse.setCookieUnsafe(response, Security.formCookie, form.token, ofCookie)
        : response
    }

    const shown = (view: View): Effect.Effect<Response> =>
      Effect.map(live.last, (last) => {
        const told = cookies[toldCookie]
        const frame = { store: operator.store, link, version, canAct, told, hasSession, formToken: form.token, last }
        const response = page(Layout.layout(frame, view), view.status ?? 200)
        return told === undefined ? response : HttpServerResponse.expireCookieUnsafe(response, toldCookie, ofCookie)
      })

    const isForUs = hosts === undefined || Security.isForHost(headers, hosts)

    /** Who may not look is told nothing of the store. */
    const failed = (told: Told): Effect.Effect<Response> =>
      isForUs && (sessions === undefined || hasSession)
        ? shown(Layout.failed(told, link))
        : Effect.succeed(page(Layout.refused({ link, version }, told), told.status))

    const redirect = (to: string): Response => HttpServerResponse.redirect(to, { status: 303 })

    const askForToken = (back: string, isWrong: boolean): Response =>
      Security.isCrossSite(headers) && method === "GET" && !isWrong
        ? page(Layout.again(back), 200)
        : page(Layout.login({ link, version, formToken: form.token }, back, isWrong), 401)

    const begun = (to: string): Response =>
      sessions === undefined
        ? redirect(to)
        : HttpServerResponse.setCookieUnsafe(redirect(to), sessions.cookie, sessions.begin(now), {
          ...ofCookie,
          maxAge: Security.sessionLasts
        })

    if (!isForUs) return yield* failed(wrongHost)

    const [, assetVersion, assetName = ""] = /^\/assets\/([^/]+)\/([^/]+)$/.exec(path) ?? []
    const asset = assetVersion === version ? files.get(assetName) : undefined
    if (asset !== undefined) {
      return HttpServerResponse.uint8Array(asset.body, {
        contentType: asset.contentType,
        headers: { "cache-control": "public, max-age=31536000, immutable" }
      })
    }

    const asked = (query: Asked["query"], id: string): Asked => ({
      operator,
      live,
      link,
      query,
      id,
      here: `${link(path)}${url.search}`,
      now,
      canAct,
      formToken: form.token
    })

    const run = (made: Page, id = ""): Effect.Effect<Response> =>
      made(asked(makeQuery(url.searchParams), id)).pipe(
        few.withPermit,
        Effect.flatMap((view): Effect.Effect<Response> =>
          HttpServerResponse.isHttpServerResponse(view) ? Effect.succeed(view) : shown(view)
        ),
        Effect.catch((error: PageError) => failed(toldOf(error))),
        Effect.timeoutOrElse({ duration: longest, orElse: () => failed(tooLong) })
      )

    const looked = (): Effect.Effect<Response> => {
      if (sessions !== undefined) {
        const given = url.searchParams.get("token")
        if (given !== null) {
          url.searchParams.delete("token")
          const to = `${link(path)}${url.search}`
          return Effect.succeed(sessions.isToken(given) ? begun(to) : askForToken(to, true))
        }
        if (!hasSession) return Effect.succeed(askForToken(`${link(path)}${url.search}`, false))
      }
      if (path === "/events") return Effect.succeed(events(Number(headers["last-event-id"]) || 0))
      const found = pages.get(path)
      if (found !== undefined) return run(found)
      const [, id = "", more = ""] = /^\/messages\/([^/]+)(\/data)?$/.exec(path) ?? []
      const ofMessage = pagesOfMessages.get(more)
      if (id !== "" && ofMessage !== undefined) return run(ofMessage, id)
      return failed(toldOf(new NotFound("The dashboard has no such page")))
    }

    const sent = Effect.gen(function*() {
      const read = yield* Effect.result(
        Effect.provideService(request.text, HttpServerRequest.MaxBodySize, largestForm)
      )
      if (read._tag === "Failure") return yield* failed(tooLarge)
      const query = makeQuery(new URLSearchParams(read.success))
      if (
        !Security.isOfSameOrigin(headers) ||
        !Security.isOfForm(cookies[Security.formCookie], query.text("form"))
      ) {
        return yield* failed(wrongForm)
      }
      const back = backOf(query.text("back"))
      if (path === "/login") {
        return sessions === undefined || sessions.isToken(query.text("token") ?? "")
          ? begun(back)
          : askForToken(back, true)
      }
      if (sessions !== undefined) {
        if (!hasSession) return askForToken(back, false)
        if (path === "/logout") {
          return HttpServerResponse.expireCookieUnsafe(redirect(link("/")), sessions.cookie, ofCookie)
        }
      }
      if (!canAct) return yield* failed(readOnly)
      const action = path.startsWith("/actions/") ? Actions.actions.get(path.slice("/actions/".length)) : undefined
      if (action === undefined) return yield* failed(toldOf(new NotFound("The dashboard has no such action")))
      return yield* action(operator, query).pipe(
        few.withPermit,
        Effect.ensuring(live.forget),
        Effect.map((done) =>
          HttpServerResponse.setCookieUnsafe(redirect(back), toldCookie, done.slice(0, 300).toWellFormed(), {
            ...ofCookie,
            maxAge: Duration.minutes(1)
          })
        ),
        Effect.catch((error: PageError) => failed(toldOf(error))),
        Effect.timeoutOrElse({ duration: longestAction, orElse: () => failed(tooLongAction) })
      )
    })

    const answer = method === "GET" || method === "HEAD"
      ? Effect.suspend(looked)
      : method === "POST"
      ? sent
      : failed({ ...broken, status: 405, title: "The dashboard has no such method", reason: `It was ${method}` })
    return yield* Effect.catchCause(answer, (cause) =>
      Cause.hasInterrupts(cause)
        ? Effect.failCause(cause)
        : Effect.andThen(Effect.logError("The dashboard has failed", cause), failed(broken)))
  })

  return (request) =>
    Effect.map(
      handle(request),
      (response) => HttpServerResponse.setHeaders(response, { ...Security.headers, ...response.headers })
    )
})
