/** One message: what it says, where it came from, what it led to, and who has handled it. */
import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { toText } from "../../internal/jsonText.ts"
import { bytes } from "../../internal/readable.ts"
import type { HandledState, Message, MessageDetails, Trace } from "../../Operator.ts"
import { type Asked, NotFound, type Page } from "../asked.ts"
import { type Content, type Html, html } from "../html.ts"
import { json } from "../json.ts"
import { heading } from "../layout.ts"
import {
  aggregatedLink,
  badge,
  cut,
  exactly,
  facts,
  messageLink,
  notice,
  number,
  panel,
  part,
  streamLink,
  subscriptionLink,
  table,
  type Tone,
  typeOf,
  when
} from "../parts.ts"

const details = ({ id, operator }: Asked) =>
  Effect.flatMap(operator.message(id), (found) =>
    found === undefined
      ? Effect.fail(new NotFound(`This store has no message ${id}`))
      : Effect.succeed(found))

const states: Readonly<Record<HandledState, readonly [tone: Tone, text: string]>> = {
  handled: ["good", "handled"],
  waiting: ["quiet", "waiting"],
  parked: ["bad", "parked"],
  requeued: ["warn", "requeued"]
}

/** Longer ones cannot be searched for. */
const longestId = 1000

const textOf = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

const places = (asked: Asked, all: MessageDetails["places"]): Html =>
  table(
    "Places in aggregated streams",
    [
      { label: "Aggregated stream", kind: "title" },
      { label: "Partition", kind: "number" },
      { label: "Position", kind: "number" },
      { label: "Subscriptions", kind: "name" }
    ],
    all.map(({ aggregatedStream, partition, position, subscriptions }) => ({
      cells: [
        aggregatedLink(asked, aggregatedStream),
        number(partition),
        html`<a href="${asked.link("/aggregated-stream", { name: aggregatedStream, partition, from: position })}">${
          number(position)
        }</a>`,
        subscriptions.length === 0
          ? html`<span class="faint">none</span>`
          : html`<ul class="states">${
            subscriptions.map(({ name, state }) => {
              const [tone, text] = states[state]
              return html`<li>${subscriptionLink(asked, name)} ${
                state === "parked" || state === "requeued"
                  ? html`<a href="${asked.link("/parked", { subscription: name })}#p-${partition}-${position}">${
                    badge(tone, text)
                  }</a>`
                  : badge(tone, text)
              }</li>`
            })
          }</ul>`
      ]
    })),
    "It is in no aggregated stream, or no projector has linked it yet."
  )

/** So many messages of a trace are shown. */
const mostShown = 200

/** A message below its cause, in the order of global positions. */
const tree = (asked: Asked, { message, messages }: Trace): Html => {
  const shown = messages.slice(0, mostShown)
  const ids = new Set(shown.map(({ messageId }) => messageId))
  const causeOf = ({ metadata: { causationId } }: Message) =>
    causationId !== undefined && ids.has(causationId) ? causationId : ""
  const children = new Map<string, Array<Message>>()
  for (const each of shown) {
    const siblings = children.get(causeOf(each))
    if (siblings === undefined) children.set(causeOf(each), [each])
    else siblings.push(each)
  }
  const done = new Set<string>()
  const branch = (of: ReadonlyArray<Message>): Content => {
    const left = of.filter(({ messageId }) => !done.has(messageId))
    for (const { messageId } of left) done.add(messageId)
    return left.length > 0 && html`<ul>${
      left.map((each) => {
        const isMeant = each.messageId === message.messageId
        const what = [typeOf(each), html` <span class="faint">${each.stream}</span>`]
        return html`<li><span class="node ${isMeant ? "meant" : ""}">${
          isMeant ? html`<strong aria-current="true">${what}</strong>` : messageLink(asked, each.messageId, what)
        } <span class="at">${when(each.addedAt, asked.now)}</span></span>${
          branch(children.get(each.messageId) ?? [])
        }</li>`
      })
    }</ul>`
  }
  const roots = branch(children.get("") ?? [])
  // Those that name each other in a circle have no first one.
  const circle = branch(shown)
  return html`<div class="tree">${roots}${circle}</div>${
    messages.length > mostShown && html`<p class="cut">${number(messages.length - mostShown)} more are not shown.</p>`
  }`
}

const trace = (asked: Asked) =>
  Effect.gen(function*() {
    const seconds = Math.min((yield* asked.query.whole("seconds")) ?? 0, 20)
    const found = yield* asked.operator.trace(asked.id, { timeLimit: seconds === 0 ? "400 millis" : seconds * 1000 })
    if (found === undefined) return undefined
    const isAlone = found.messages.length === 1
    return [
      isAlone && found.reached === undefined
        ? html`<p class="empty">Nothing led to it that this store has, and nothing came of it.</p>`
        : tree(asked, found),
      found.reached !== undefined &&
      html`<p class="cut">Looked as far as position ${number(found.reached)}. <a href="${
        asked.link(`/messages/${asked.id}`, { seconds: 10 })
      }">Look for more, up to 10 seconds</a></p>`
    ]
  })

export const message: Page = (asked) =>
  Effect.gen(function*() {
    const { link, now } = asked
    const { cause, message: of, places: where, tags } = yield* details(asked)
    const whole = {
      href: link(`/messages/${of.messageId}/data`),
      size: () => bytes(Buffer.byteLength(toText(of.data)))
    }
    const correlationId = textOf(of.metadata.correlationId)
    const causationId = textOf(of.metadata.causationId)
    const traced = yield* part(trace(asked), (shown) => shown)
    return {
      title: `${cut(of.type ?? "Message")} ${of.messageId}`,
      section: "messages",
      isLive: false,
      body: [
        heading(html`<span class="name">${typeOf(of)}</span>`, {
          kicker: html`<a href="${link("/messages")}">Messages</a>`,
          about: html`<code>${of.messageId}</code>`,
          aside: of.oversize === undefined &&
            html`<a class="button" href="${whole.href}" download>Download JSON</a>`
        }),
        facts([
          ["Stream", streamLink(asked, of.stream)],
          [
            "Version",
            html`<a href="${link("/stream", { name: of.stream, before: of.version + 1 })}">${number(of.version)}</a>`
          ],
          [
            "Global position",
            html`<a href="${link("/messages", { to: of.globalPosition })}">${number(of.globalPosition)}</a>`
          ],
          ["Added", html`${exactly(of.addedAt)} <span class="faint">(${when(of.addedAt, now)})</span>`],
          [
            "Correlation",
            correlationId && (correlationId.length > longestId
              ? cut(correlationId)
              : html`<a href="${link("/messages", { correlation: correlationId })}">${correlationId}</a>`)
          ],
          [
            "Caused by",
            causationId && (cause === undefined
              ? html`${cut(causationId)} <span class="faint">(this store has no such message)</span>`
              : messageLink(asked, cause.messageId, [typeOf(cause), " in ", cause.stream]))
          ],
          [
            "Tags",
            tags.length > 0 && html`<ul class="tags">${
              tags.map((tag) => html`<li><a class="tag" href="${link("/messages", { tag })}">${tag}</a></li>`)
            }</ul>`
          ]
        ]),
        html`<div class="columns">${
          panel(
            "Data",
            of.oversize === undefined ? json("Data", of.data, whole) : notice(
              "warn",
              "It is too large to be read",
              `It has ${
                bytes(of.oversize)
              }. The client of the dashboard reads less at once: its maxMessageSize says how much.`
            )
          )
        }${panel("Metadata", json("Metadata", of.metadata))}</div>`,
        panel("Causes and consequences", traced),
        panel("Places in aggregated streams", places(asked, where))
      ]
    }
  })

/** The whole of it, for who takes it home. */
export const messageData: Page = (asked) =>
  Effect.map(details(asked), ({ message: { data, messageId } }) =>
    HttpServerResponse.text(toText(data), {
      contentType: "application/json; charset=utf-8",
      headers: {
        "content-disposition": `attachment; filename="${messageId}.json"`,
        "content-security-policy": "default-src 'none'; sandbox"
      }
    }))
