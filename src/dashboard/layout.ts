/** What all pages have around them. */
import type { Link, Section, View } from "./asked.ts"
import type { Told } from "./failure.ts"
import { attributes, type Content, type Html, html } from "./html.ts"
import type { Snapshot } from "./live.ts"

/** What a page is shown in. */
interface Frame {
  readonly store: string
  readonly link: Link
  /** Names the assets of this build. */
  readonly version: string
  readonly canAct: boolean
  /** What was done, said once. */
  readonly told: string | undefined
  /** Whether there is a session to be ended. */
  readonly hasSession: boolean
  readonly formToken: string
  readonly last: Snapshot | undefined
}

const sections: ReadonlyArray<readonly [section: Section, page: string, label: string]> = [
  ["overview", "/", "Overview"],
  ["streams", "/streams", "Streams"],
  ["messages", "/messages", "Messages"],
  ["aggregated-streams", "/aggregated-streams", "Aggregated streams"],
  ["subscriptions", "/subscriptions", "Subscriptions"],
  ["parked", "/parked", "Parked"],
  ["projections", "/projections", "Projections"],
  ["scheduled", "/scheduled", "Scheduled"]
]

/** How many things of a section want somebody to look at them. */
const counted = (section: Section, last: Snapshot | undefined): Content => {
  if (last === undefined) return undefined
  const parked = last.subscriptions.reduce((sum, { totals }) => sum + (totals?.parked ?? 0), 0)
  const count = section === "parked" ? parked : section === "scheduled" ? last.overview.scheduled.refused : 0
  return count > 0 && html`<span class="count">${count.toLocaleString("en-US")}</span>`
}

const document = (
  { link, version }: Pick<Frame, "link" | "version">,
  title: string,
  body: Content,
  more: Readonly<Record<string, string | undefined>> = {}
): Html => {
  const asset = (name: string) => link(`/assets/${version}/${name}`)
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>${title}</title>
<link rel="icon" href="${asset("icon.svg")}" type="image/svg+xml">
<link rel="stylesheet" href="${asset("uplot.css")}">
<link rel="stylesheet" href="${asset("dashboard.css")}">
<script defer src="${asset("uplot.js")}"></script>
<script defer src="${asset("idiomorph.js")}"></script>
<script defer src="${asset("dashboard.js")}"></script>
</head>
<body${attributes(more)}>${body}</body>
</html>
`
}

/** A page in its frame. */
export const layout = (frame: Frame, view: View): Html => {
  const { canAct, formToken, hasSession, last, link, store, told } = frame
  return document(
    frame,
    `${view.title} · ${store}`,
    html`
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
  <a class="brand" href="${
      link("/")
    }"><span class="mark" aria-hidden="true"></span><span class="store">${store}</span></a>
  <form class="find" role="search" aria-label="Find" action="${link("/find")}">
    <input type="search" name="q" aria-label="Find a stream or a message" placeholder="Stream, or id of a message" autocomplete="off" spellcheck="false" maxlength="1000">
    <kbd aria-hidden="true">/</kbd>
  </form>
  <div class="state">
    ${!canAct && html`<span class="badge quiet" title="Nothing can be changed here">read-only</span>`}
    <button type="button" id="live" class="live" aria-pressed="true" hidden>live</button>
    ${
      hasSession &&
      html`<form method="post" action="${
        link("/logout")
      }"><input type="hidden" name="form" value="${formToken}"><button class="plain">Log out</button></form>`
    }
  </div>
</header>
<nav class="pages" id="pages" aria-label="Dashboard"><ul>${
      sections.map(([section, page, label]) =>
        html`<li><a href="${link(page)}"${attributes({ "aria-current": view.section === section && "page" })}>${label}${
          counted(section, last)
        }</a></li>`
      )
    }</ul></nav>
<div class="content">
  <div id="told" role="status">${told && html`<p class="notice good">${told}</p>`}</div>
  <div id="stale" class="notice warn" role="alert" hidden></div>
  <main id="main" tabindex="-1"${attributes({ "data-live": view.isLive })}>${view.body}</main>
</div>`,
    { "data-events": link("/events") }
  )
}

/** The heading of a page, and what can be done there. */
export const heading = (
  title: Content,
  options: { readonly kicker?: Content; readonly aside?: Content; readonly about?: Content } = {}
): Html =>
  html`<header class="heading"><div>${
    options.kicker && html`<p class="kicker">${options.kicker}</p>`
  }<h1>${title}</h1>${options.about && html`<p class="about">${options.about}</p>`}</div>${
    options.aside && html`<div class="aside">${options.aside}</div>`
  }</header>`

/** What failed, and what to do. */
export const failed = (told: Told, link: Link): View => ({
  title: told.title,
  section: undefined,
  // It goes away by itself once the database can be reached again.
  isLive: told.status === 503,
  status: told.status,
  body:
    html`<div class="failed"><h1>${told.title}</h1><p class="reason">${told.reason}</p><p>${told.advice}</p><p><a class="button" href="${
      link("/")
    }">Overview</a></p></div>`
})

/** The same, with nothing around it. */
export const refused = (frame: Pick<Frame, "link" | "version">, { advice, reason, title }: Told): Html =>
  document(
    frame,
    title,
    html`<main class="login" id="main"><div class="failed"><h1>${title}</h1><p class="reason">${reason}</p><p>${advice}</p></div></main>`
  )

/** Asks for the token. */
export const login = (
  frame: Pick<Frame, "link" | "version" | "formToken">,
  back: string,
  isWrong: boolean
): Html =>
  document(
    frame,
    "Log in",
    html`
<main class="login" id="main">
  <form method="post" action="${frame.link("/login")}">
    <h1><span class="mark" aria-hidden="true"></span>Message store</h1>
    <p>This dashboard asks for its token. Who has started it knows it: the command line prints a link that has it.</p>
    ${isWrong && html`<p class="notice bad" role="alert">That is not the token.</p>`}
    <input type="hidden" name="form" value="${frame.formToken}">
    <input type="hidden" name="back" value="${back}">
    <label class="field"><span>Token</span><input type="password" name="token" required autofocus autocomplete="current-password" maxlength="1000"></label>
    <button class="primary">Log in</button>
  </form>
</main>`
  )

/** Comes back at once, with the cookies that a browser does not send along from pages of other sites. */
export const again = (href: string): Html =>
  html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0"><title>Dashboard</title></head>
<body><p><a href="${href}">Go on to the dashboard</a></p></body></html>
`
