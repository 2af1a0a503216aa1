/**
 * Who may ask, and from where: the name of the host, the session that a token has begun, and that a form was sent by a page of
 * the dashboard.
 */
import { DateTime, Duration, Predicate, Redacted } from "effect"
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto"

type Headers = Readonly<Record<string, string | undefined>>

/** Of every answer. A page has no script and no style but those of the dashboard, and is shown in no frame. */
export const headers = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'"
  ].join("; "),
  "cache-control": "no-store",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  // Not `no-referrer`: forms would be sent without their origin.
  "referrer-policy": "same-origin",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY"
} as const

/** Whether two secrets are the same, in a time that does not tell how much of them is. */
export const isSame = (one: string, other: string): boolean => {
  const digest = (text: string) => createHash("sha256").update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}

/** The name in a `Host` header, without its port. */
const nameOf = (host: string): string => host.toLowerCase().replace(/:\d*$/, "")

/** The names of loopback: a page of another name that resolves to it is a page of somebody else. */
export const loopbackNames: ReadonlyArray<string> = ["localhost", "127.0.0.1", "[::1]"]

/** Whether the request is meant for one of these names. */
export const isForHost = ({ host }: Headers, names: ReadonlyArray<string>): boolean =>
  host !== undefined && names.some((name) => nameOf(name) === nameOf(host))

/** Whether a browser says that a page of the same origin has sent this. What is no browser says nothing. */
export const isOfSameOrigin = (request: Headers): boolean => {
  const site = request["sec-fetch-site"]
  if (site !== undefined) return site === "same-origin"
  const { host, origin } = request
  if (origin === undefined) return true
  return host !== undefined && URL.parse(origin)?.host === host.toLowerCase()
}

/** Whether it comes from a page of another site: then cookies that are of this one alone were not sent. */
export const isCrossSite = (request: Headers): boolean => request["sec-fetch-site"] === "cross-site"

/** Whether the browser has come by TLS, whoever ends that: this server, as its socket or the request's URL tells, or a proxy. */
export const isSecure = (request: {
  readonly headers: Headers
  readonly originalUrl: string
  readonly protocol: string | undefined
  readonly source: object
}): boolean => {
  const { originalUrl, protocol, source } = request
  return (protocol ?? request.headers["x-forwarded-proto"]?.split(",")[0]?.trim()) === "https" ||
    originalUrl.startsWith("https:") ||
    (Predicate.hasProperty(source, "socket") && Predicate.hasProperty(source.socket, "encrypted") &&
      source.socket.encrypted === true)
}

/** What a form sends back has to be what the cookie of its page says. */
export const formCookie = "effect-message-store-form"

const formTokenPattern = /^[\w-]{43}$/

/** The token of forms: that of the browser, or a new one. */
export const formTokenOf = (cookie: string | undefined): { readonly token: string; readonly isNew: boolean } =>
  cookie !== undefined && formTokenPattern.test(cookie)
    ? { token: cookie, isNew: false }
    : { token: randomBytes(32).toString("base64url"), isNew: true }

/** Whether a form was made for the browser that sends it. */
export const isOfForm = (cookie: string | undefined, sent: string | undefined): boolean =>
  cookie !== undefined && sent !== undefined && formTokenPattern.test(cookie) && isSame(cookie, sent)

/** How long a session lasts. */
export const sessionLasts = Duration.hours(12)

/** The sessions of those who know the token: a cookie without the token, which any process that knows it can check. */
export interface Sessions {
  readonly cookie: string
  readonly isToken: (given: string) => boolean
  readonly begin: (now: DateTime.Utc) => string
  readonly isOpen: (value: string | undefined, now: DateTime.Utc) => boolean
}

export const makeSessions = (token: Redacted.Redacted): Sessions => {
  const sign = (text: string) => createHmac("sha256", Redacted.value(token)).update(text).digest("base64url")
  return {
    // Cookies know no ports: dashboards on one host have names of their own.
    cookie: `effect-message-store-session-${sign("name").slice(0, 8)}`,
    isToken: (given) => isSame(given, Redacted.value(token)),
    begin: (now) => {
      const until = String(DateTime.addDuration(now, sessionLasts).epochMilliseconds)
      return `${until}.${sign(`session until ${until}`)}`
    },
    isOpen: (value, now) => {
      const [, until = "", signature = ""] = /^(\d{1,15})\.([\w-]+)$/.exec(value ?? "") ?? []
      return isSame(signature, sign(`session until ${until}`)) && Number(until) > now.epochMilliseconds
    }
  }
}
