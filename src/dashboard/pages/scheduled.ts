/** Messages that are to be written later, and those that could not be. */
import { Effect } from "effect"
import type { ScheduledMessage } from "../../Operator.ts"
import type { Asked, Page } from "../asked.ts"
import { confirmed } from "../forms.ts"
import { type Content, type Html, html } from "../html.ts"
import { json } from "../json.ts"
import { heading } from "../layout.ts"
import { due, idOf, number, pages, part, streamLink, tabs, typeOf } from "../parts.ts"

const pageSize = 50

/** So many characters of each message are shown. */
const mostShown = 8 * 1024

const entry = (asked: Asked, each: ScheduledMessage): Html =>
  html`<li class="parked" id="${idOf("k", each.key)}"><details><summary><span class="what"><b>${typeOf(each)}</b>${
    each.refused !== undefined && html`<span class="error">${each.refused}</span>`
  }</span><span class="of">${
    due(each.at, asked.now)
  } · ${each.stream} · key ${each.key}</span></summary><div class="inside"><p>Into ${
    streamLink(asked, each.stream)
  }, as <code>${each.messageId}</code></p>${json("Data", each.data, undefined, mostShown)}${
    json("Metadata", each.metadata, undefined, mostShown)
  }</div></details>${
    confirmed(asked, {
      action: "cancel",
      fields: { key: each.key },
      label: each.refused === undefined ? "Cancel …" : "Remove …",
      describedAs: `Cancel ${each.key}`,
      text: html`The message of the key <code>${each.key}</code> is not written.`,
      button: "Do not write it",
      isDangerous: true
    })
  }</li>`

const counts = (asked: Asked): Effect.Effect<Content> =>
  part(
    asked.operator.overview,
    ({ scheduled: { overdue, refused, waiting } }) =>
      html`${number(waiting)} wait${overdue !== undefined && html`, the first is overdue`}; ${
        number(refused)
      } could not be written`
  )

export const scheduled: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const isRefused = query.text("show") === "refused"
    const show = isRefused ? "refused" : undefined
    const cursor = query.text("cursor")
    const page = yield* operator.scheduled({ cursor, limit: pageSize, refused: isRefused })
    return {
      title: "Scheduled",
      section: "scheduled",
      isLive: true,
      body: [
        heading("Scheduled", { about: yield* counts(asked) }),
        tabs("Scheduled messages", [
          ["Waiting", link("/scheduled"), !isRefused],
          ["Could not be written", link("/scheduled", { show: "refused" }), isRefused]
        ]),
        page.items.length === 0
          ? html`<p class="empty">${
            isRefused ? "All messages that were due could be written." : "No message waits to be written."
          }</p>`
          : html`<ul class="list">${page.items.map((each) => entry(asked, each))}</ul>`,
        pages((to) => link("/scheduled", { show, cursor: to }), cursor, page.next)
      ]
    }
  })
