/** Dead letters: of all subscriptions, and of one, grouped by errors; handled again, or given up. */
import { Effect } from "effect"
import type { ParkedError, ParkedMessage } from "../../Operator.ts"
import { errorOf, errorText } from "../actions.ts"
import type { Asked, Page, View } from "../asked.ts"
import { actionForm, confirmed } from "../forms.ts"
import { attributes, type Content, type Html, html, lines } from "../html.ts"
import { json } from "../json.ts"
import { heading } from "../layout.ts"
import {
  badge,
  cut,
  idOf,
  messageLink,
  number,
  pages,
  panel,
  part,
  streamLink,
  subscriptionLink,
  table,
  typeOf,
  when
} from "../parts.ts"

const pageSize = 25

/** So many characters of each message are shown. */
const mostOfMessage = 8 * 1024

/** So many kinds of errors are told, of so many subscriptions on one page. */
const mostErrors = 100
const mostShown = 20

/** A failure with its causes, from the outer one on. */
const failures = ({ error }: ParkedMessage): ReadonlyArray<ParkedMessage["error"]> => {
  const all: Array<ParkedMessage["error"]> = []
  for (let each: ParkedMessage["error"] | undefined = error; each !== undefined; each = each.cause) all.push(each)
  return all
}

const failure = ({ fields, message, stack, tag }: ParkedMessage["error"], i: number): Html =>
  html`<div class="failure"><p>${i > 0 && html`<span class="faint">caused by</span> `}<b>${tag}</b>: ${
    lines(message)
  }</p>${
    fields !== undefined && Object.keys(fields).length > 0 &&
    json("Fields of the error", fields, undefined, mostOfMessage)
  }${
    stack !== undefined &&
    html`<details class="stack"><summary>Stack</summary><pre tabindex="0">${lines(stack)}</pre></details>`
  }</div>`

/** One more than are told, to tell that there are more. */
const errorsOf = ({ operator }: Asked, subscription: string) =>
  operator.parkedErrors(subscription, { limit: mostErrors + 1 })

const groups = (
  asked: Asked,
  subscription: string,
  found: ReadonlyArray<ParkedError>,
  chosen: string | undefined
): Content => [
  table(
    "Errors",
    [
      { label: "Messages", kind: "number" },
      { label: "Error", kind: "title" },
      { label: "First" },
      { label: "Last" },
      ...asked.canAct ? [{ label: "", kind: "act" } as const] : []
    ],
    found.slice(0, mostErrors).map((each) => {
      const error = errorText(each)
      const fields = { subscription, error }
      const about = `messages with ${each.tag}`
      return {
        id: idOf("e", `${subscription} ${error}`),
        isMeant: error === chosen,
        cells: [
          number(each.count),
          html`<a href="${asked.link("/parked", { subscription, error })}"${
            attributes({ "aria-current": error === chosen && "true" })
          }><b>${each.tag}</b>: ${each.message.slice(0, 300)}</a>`,
          when(each.firstParkedAt, asked.now),
          when(each.lastParkedAt, asked.now),
          ...asked.canAct
            ? [html`<div class="acts">${
              confirmed(asked, {
                action: "requeue",
                fields,
                label: "Requeue …",
                describedAs: `Requeue ${about}`,
                text: html`${number(each.count)} messages are handled again, by whoever runs <b>${subscription}</b>.`,
                button: "Requeue them"
              })
            }${
              confirmed(asked, {
                action: "discard",
                fields,
                label: "Discard …",
                describedAs: `Discard ${about}`,
                text: html`${number(each.count)} messages are given up for good. They stay in their streams.`,
                button: "Discard them",
                isDangerous: true
              })
            }</div>`]
            : []
        ]
      }
    }),
    "No message of this subscription is parked."
  ),
  found.length > mostErrors &&
  html`<p class="cut">There are more errors than these ${
    number(mostErrors)
  }, which are the most frequent. <code>effect-message-store parked --errors --limit 1000</code> tells more.</p>`
]

const entry = (asked: Asked, each: ParkedMessage): Html => {
  const { attempts, error, key, message, messageId, parkedAt, partition, position, requeuedAt } = each
  const place = `${partition}:${position}`
  return html`<li class="parked" id="p-${partition}-${position}">${
    asked.canAct &&
    html`<input type="checkbox" form="marked" name="place" value="${place}" aria-label="Mark ${
      cut(message?.type ?? "message")
    } ${place}">`
  }<details><summary><span class="what"><b>${message === undefined ? "Deleted message" : typeOf(message)}</b> ${
    requeuedAt !== undefined && badge("warn", "requeued")
  }<span class="error">${error.tag}: ${
    error.message.slice(0, 300)
  }</span></span><span class="of">${message?.stream} · partition ${number(partition)}, position ${number(position)} · ${
    attempts === 1 ? "1 attempt" : html`${number(attempts)} attempts`
  } · ${when(parkedAt, asked.now)}</span></summary><div class="inside"><p>${messageLink(asked, messageId)}${
    message !== undefined && html` in ${streamLink(asked, message.stream)}, version ${number(message.version)}`
  }${key !== undefined && html` · parked with others of the key <code>${key}</code>`}${
    requeuedAt !== undefined && html` · requeued ${when(requeuedAt, asked.now)}`
  }</p>${failures(each).map(failure)}${
    message !== undefined && message.oversize === undefined && json("Data", message.data, {
      href: asked.link(`/messages/${messageId}/data`),
      size: () => "as JSON"
    }, mostOfMessage)
  }</div></details></li>`
}

const all = (asked: Asked, name: string, errors: ReadonlyArray<ParkedError>): Content => {
  const count = errors.length > mostErrors ? "" : html`${number(errors.reduce((sum, each) => sum + each.count, 0))} `
  return errors.length > 0 && [
    confirmed(asked, {
      action: "requeue",
      fields: { subscription: name, all: "yes" },
      label: "Requeue all …",
      text: html`All ${count}parked messages are handled again, by whoever runs <b>${name}</b>.`,
      button: "Requeue all"
    }),
    confirmed(asked, {
      action: "discard",
      fields: { subscription: name, all: "yes" },
      label: "Discard all …",
      text: html`All ${count}parked messages are given up for good. They stay in their streams.`,
      button: "Discard all",
      isDangerous: true
    })
  ]
}

/** Buttons for the messages that are marked. */
const marked = (asked: Asked, subscription: string): Content =>
  asked.canAct && html`<div class="marked">${
    actionForm(
      asked,
      "requeue",
      { subscription },
      html`<button>Requeue marked</button><button class="danger" formaction="${
        asked.link("/actions/discard")
      }">Discard marked</button>`,
      { id: "marked" }
    )
  }</div>`

const ofOne = (asked: Asked, name: string) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const error = yield* errorOf(query.text("error"))
    const chosen = error && errorText(error)
    const cursor = query.text("cursor")
    const errors = yield* errorsOf(asked, name)
    const page = yield* operator.parked(name, { error, cursor, limit: pageSize })
    const view: View = {
      title: `Parked · ${name}`,
      section: "parked",
      isLive: true,
      body: [
        heading(html`<span class="name">${name}</span>`, {
          kicker: html`<a href="${link("/parked")}">Parked</a>`,
          about: html`Dead letters of the subscription ${subscriptionLink(asked, name)}`,
          aside: asked.canAct && all(asked, name, errors)
        }),
        panel("Errors", groups(asked, name, errors, chosen)),
        panel(
          "Messages",
          page.items.length === 0
            ? html`<p class="empty">${
              chosen === undefined && cursor === undefined
                ? "No message of this subscription is parked."
                : "None is parked here any more."
            }</p>`
            : [marked(asked, name), html`<ul class="list">${page.items.map((each) => entry(asked, each))}</ul>`],
          error &&
            html`Those with <b>${error.tag}</b> <a class="button" href="${
              link("/parked", { subscription: name })
            }">Show all</a>`
        ),
        pages((to) => link("/parked", { subscription: name, error: chosen, cursor: to }), cursor, page.next)
      ]
    }
    return view
  })

const ofAll = (asked: Asked) =>
  Effect.gen(function*() {
    const { subscriptions } = yield* asked.live.snapshot
    const some = subscriptions.filter(({ totals }) => (totals?.parked ?? 0) > 0)
    const parts = yield* Effect.forEach(some.slice(0, mostShown), ({ name, totals }) =>
      Effect.map(
        part(errorsOf(asked, name), (errors) => groups(asked, name, errors, undefined)),
        (shown) =>
          panel(name, shown, [
            totals !== undefined && totals.requeued > 0 && badge("warn", html`${number(totals.requeued)} requeued`),
            html` <a class="button" href="${asked.link("/parked", { subscription: name })}">Inspect</a>`
          ])
      ))
    const view: View = {
      title: "Parked",
      section: "parked",
      isLive: true,
      body: [
        heading("Parked", {
          about: "Messages whose handlers have failed too often. The others of their partitions go on without them."
        }),
        some.length === 0 ? html`<p class="empty">No message is parked in any subscription.</p>` : parts,
        some.length > mostShown &&
        html`<p class="cut">${number(some.length - mostShown)} more subscriptions have parked messages: see <a href="${
          asked.link("/subscriptions")
        }">all of them</a>.</p>`
      ]
    }
    return view
  })

export const parked: Page = (asked) => {
  const name = asked.query.text("subscription")
  return name === undefined ? ofAll(asked) : ofOne(asked, name)
}
