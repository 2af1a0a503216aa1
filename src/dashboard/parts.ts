/** What pages are put together from. */
import { DateTime, Duration, Effect } from "effect"
import { createHash } from "node:crypto"
import * as Readable from "../internal/readable.ts"
import type { Message } from "../Operator.ts"
import type { Asked, PageError } from "./asked.ts"
import { toldOf } from "./failure.ts"
import { attributes, type Content, type Html, html } from "./html.ts"

/** An id for what has no other than a text: when a page is read again, what is of the same id stays what it is. */
export const idOf = (prefix: string, text: string): string =>
  `${prefix}-${createHash("sha256").update(text).digest("base64url").slice(0, 16)}`

export type Tone = "good" | "warn" | "bad" | "quiet" | "info"

/** A state in a word or two. */
export const badge = (tone: Tone, text: Content): Html => html`<span class="badge ${tone}">${text}</span>`

/** Some lines that stand out: something is wrong, or has to be known. */
export const notice = (tone: Tone, title: Content, text: Content = undefined): Html =>
  html`<div class="notice ${tone}"><p><strong>${title}</strong></p>${text && html`<p>${text}</p>`}</div>`

export const number = (value: number | undefined): Content => value === undefined ? "" : Readable.count(value)

/** How long something has been, or takes. */
export const span = (value: Duration.Duration | undefined): Content =>
  value === undefined ? "" : Readable.duration(value)

const moment = (at: DateTime.Utc, text: string): Html => {
  const iso = DateTime.formatIso(at)
  return html`<time datetime="${iso}" title="${iso}">${text}</time>`
}

/** How long ago that was, and exactly when, where one points at it. */
export const when = (at: DateTime.Utc | undefined, now: DateTime.Utc): Html =>
  at === undefined
    ? html`<span class="faint">never</span>`
    : moment(at, now.epochMilliseconds - at.epochMilliseconds < 1000 ? "just now" : Readable.ago(at, now))

/** When something is due. */
export const due = (at: DateTime.Utc, now: DateTime.Utc): Html => {
  const left = at.epochMilliseconds - now.epochMilliseconds
  return left > 0 ? moment(at, `in ${Readable.duration(Duration.millis(left))}`) : html`due ${when(at, now)}`
}

/** A moment, exactly. */
export const exactly = (at: DateTime.Utc): Html => {
  const iso = DateTime.formatIso(at)
  return html`<time datetime="${iso}">${iso.slice(0, 10)} <b>${iso.slice(11, 19)}</b>${iso.slice(19, 23)} UTC</time>`
}

/** Names and what they are. */
export const facts = (all: ReadonlyArray<readonly [name: string, value: Content]>): Html =>
  html`<dl class="facts">${
    all.flatMap(([name, value]) =>
      value === undefined || value === "" || value === false ? [] : [html`<div><dt>${name}</dt><dd>${value}</dd></div>`]
    )
  }</dl>`

/** A part of a page, with a heading of its own. */
export const panel = (title: string, body: Content, aside: Content = undefined): Html => {
  const id = `panel-${encodeURIComponent(title.toWellFormed())}`
  return html`<section class="panel" aria-labelledby="${id}"><header><h2 id="${id}">${title}</h2>${
    aside && html`<div class="aside">${aside}</div>`
  }</header>${body}</section>`
}

export interface Column {
  readonly label: string
  /** `"number"`: at the right. `"name"`: may be long. `"title"`: the name of the row, on top of its card. `"act"`: buttons. */
  readonly kind?: "number" | "name" | "title" | "act" | undefined
}

const classOf = ({ kind }: Column): string | undefined => kind === "title" ? "name title" : kind

export interface Row {
  readonly id?: string | undefined
  readonly isMeant?: boolean | undefined
  readonly cells: ReadonlyArray<Content>
}

/** A table; on narrow screens each row is a card. */
export const table = (name: string, columns: ReadonlyArray<Column>, rows: ReadonlyArray<Row>, empty: Content): Html =>
  rows.length === 0
    ? html`<p class="empty">${empty}</p>`
    : html`<div class="scroll"><table aria-label="${name}"><thead><tr>${
      columns.map((column) => html`<th scope="col"${attributes({ class: classOf(column) })}>${column.label}</th>`)
    }</tr></thead><tbody>${
      rows.map(({ cells, id, isMeant }) =>
        html`<tr${attributes({ id, class: isMeant === true ? "meant" : undefined })}>${
          cells.map((cell, i) =>
            html`<td${
              attributes({ class: columns[i] && classOf(columns[i]), "data-label": columns[i]?.label })
            }><div>${cell}</div></td>`
          )
        }</tr>`
      )
    }</tbody></table></div>`

/** Links to other pages of a list; those without a target are not there. */
export const pager = (all: ReadonlyArray<readonly [label: string, href: string | undefined]>): Content => {
  const there = all.filter(([, href]) => href !== undefined)
  return there.length > 0 &&
    html`<nav class="pager" aria-label="Pages of this list">${
      there.map(([label, href]) => html`<a class="button" href="${href}">${label}</a>`)
    }</nav>`
}

/** Those of a list that is read forward, from a cursor on. */
export const pages = (
  link: (cursor: string | undefined) => string,
  cursor: string | undefined,
  next: string | undefined,
  onward = "Next"
): Content =>
  pager([
    ["First page", cursor === undefined ? undefined : link(undefined)],
    [onward, next === undefined ? undefined : link(next)]
  ])

/** Choices, one of which is the present one. */
export const tabs = (
  name: string,
  all: ReadonlyArray<readonly [label: Content, href: string, isHere: boolean]>
): Html =>
  html`<nav class="tabs" aria-label="${name}">${
    all.map(([label, href, isHere]) =>
      html`<a href="${href}"${attributes({ "aria-current": isHere && "page" })}>${label}</a>`
    )
  }</nav>`

/** How much of something is done. */
export const progress = (name: string, done: number, total: number): Html => {
  const part = total === 0 ? 100 : Math.floor((100 * Math.min(done, total)) / total)
  return html`<span class="progress"><progress aria-label="${name}" max="100" value="${part}"></progress> ${part} %</span>`
}

/** A line that is drawn by what the server tells meanwhile. */
export const chart = (what: "rate" | "lag" | "age", of: string, label: string, isLarge = false): Html =>
  html`<div class="chart ${
    isLarge ? "large" : "small"
  }" role="img" aria-label="${label}" data-chart="${what}" data-of="${of}"></div>`

/** Runs a part of a page: where it fails, the page says so in its place. */
export const part = <A>(
  effect: Effect.Effect<A, PageError>,
  show: (value: A) => Content
): Effect.Effect<Content> =>
  effect.pipe(
    Effect.map(show),
    Effect.catch((error) => {
      const { advice, reason, title } = toldOf(error)
      return Effect.succeed(notice("warn", title, `${reason}. ${advice}`))
    })
  )

/** The links between things. */
export const streamLink = ({ link }: Asked, stream: string): Html =>
  html`<a href="${link("/stream", { name: stream })}">${stream}</a>`

export const messageLink = ({ link }: Asked, id: string, text: Content = id): Html =>
  html`<a class="id" href="${link(`/messages/${encodeURIComponent(id)}`)}">${text}</a>`

export const subscriptionLink = ({ link }: Asked, name: string): Html =>
  html`<a href="${link("/subscription", { name })}">${name}</a>`

export const aggregatedLink = ({ link }: Asked, name: string): Html =>
  html`<a href="${link("/aggregated-stream", { name })}">${name}</a>`

/** The beginning of text that may be as large as a message. */
export const cut = (text: string, most = 200): string => text.length > most ? `${text.slice(0, most)}…` : text

/** The name of a message's type. */
export const typeOf = ({ type }: Pick<Message, "type">): Content =>
  type === undefined ? html`<span class="faint">no type</span>` : cut(type)

/** Messages, one a row. */
export const messageTable = (
  asked: Asked,
  messages: ReadonlyArray<Message>,
  empty: Content,
  { withStream }: { readonly withStream: boolean }
): Html =>
  table(
    "Messages",
    [
      { label: withStream ? "Position" : "Version", kind: "number" },
      { label: "Type", kind: "title" },
      ...withStream ? [{ label: "Stream", kind: "name" } as const, { label: "Version", kind: "number" } as const] : [
        { label: "Position", kind: "number" } as const
      ],
      { label: "Message id" },
      { label: "Added" }
    ],
    messages.map((each) => ({
      id: `m-${each.messageId}`,
      cells: [
        number(withStream ? each.globalPosition : each.version),
        messageLink(asked, each.messageId, typeOf(each)),
        ...withStream ? [streamLink(asked, each.stream), number(each.version)] : [number(each.globalPosition)],
        html`<code>${each.messageId}</code>`,
        when(each.addedAt, asked.now)
      ]
    })),
    empty
  )
