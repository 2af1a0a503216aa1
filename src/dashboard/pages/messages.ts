/** Searches for messages; and what is entered at the top of each page. */
import { Effect, Result } from "effect"
import { HttpServerResponse } from "effect/http"
import { checkMessageId } from "../../internal/checks.ts"
import { timeOf } from "../actions.ts"
import type { Asked, Page } from "../asked.ts"
import { choice, field, searchForm } from "../forms.ts"
import { attributes, html } from "../html.ts"
import { heading } from "../layout.ts"
import { messageTable, number, pages } from "../parts.ts"
import { timeLimit } from "./streams.ts"

const pageSize = 50

/** What the form has, as the URL has it. */
const entered = ["type", "pattern", "tag", "correlation", "causation", "since", "until", "from", "to", "order"] as const

/** What is not always shown. */
const seldom = ["correlation", "causation", "since", "until", "from", "to"] as const

type Entered = Readonly<Record<(typeof entered)[number], string | undefined>>

const enteredOf = ({ query }: Asked): Entered => ({
  type: query.typed("type"),
  pattern: query.text("pattern"),
  tag: query.typed("tag"),
  correlation: query.typed("correlation"),
  causation: query.typed("causation"),
  since: query.typed("since"),
  until: query.typed("until"),
  from: query.typed("from"),
  to: query.typed("to"),
  order: query.typed("order") === "oldest" ? "oldest" : undefined
})

/** Tags are parted by commas. */
const tagsOf = (text: string | undefined): ReadonlyArray<string> =>
  text === undefined ? [] : text.split(",").map((tag) => tag.trim()).filter((tag) => tag !== "")

export const messages: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const of = enteredOf(asked)
    const cursor = query.text("cursor")
    const isAsked = entered.some((name) => of[name] !== undefined)
    const found = yield* operator.search({
      type: of.type,
      pattern: of.pattern,
      tags: tagsOf(of.tag),
      correlationId: of.correlation,
      causationId: of.causation,
      fromTime: yield* timeOf(query, "since"),
      toTime: yield* timeOf(query, "until"),
      fromPosition: yield* query.whole("from"),
      toPosition: yield* query.whole("to"),
      direction: of.order === "oldest" ? "forward" : "backward",
      cursor,
      limit: pageSize,
      timeLimit
    })
    const isMore = found.next !== undefined && found.items.length < pageSize
    return {
      title: "Messages",
      section: "messages",
      isLive: !isAsked && cursor === undefined,
      body: [
        heading("Messages"),
        searchForm(asked, "/messages", "Messages", [
          field("Type", "type", of.type, { placeholder: "OrderPlaced" }),
          field("Stream", "pattern", of.pattern, { placeholder: "order-% (a pattern)" }),
          field("Tags", "tag", of.tag, { placeholder: "customer:7, seat:12A" }),
          choice("Order", "order", of.order ?? "newest", [["newest", "Newest first"], ["oldest", "Oldest first"]]),
          html`<div class="buttons"><button class="primary">Search</button>${
            isAsked && html`<a class="button" href="${link("/messages")}">Clear</a>`
          }</div>`,
          html`<details class="more"${
            attributes({ open: seldom.some((name) => of[name] !== undefined) })
          }><summary>Ids, times and positions</summary><div>${[
            field("Correlation id", "correlation", of.correlation),
            field("Causation id", "causation", of.causation),
            field("Added since (UTC)", "since", of.since, { type: "datetime-local", step: 1 }),
            field("Until (UTC)", "until", of.until, { type: "datetime-local", step: 1 }),
            field("From position", "from", of.from, { inputmode: "numeric" }),
            field("To position", "to", of.to, { inputmode: "numeric" })
          ]}</div></details>`
        ]),
        messageTable(
          asked,
          found.items,
          found.next === undefined
            ? isAsked ? "No message is like that." : "Nothing has been written yet."
            : "None of those that were looked at is like that.",
          { withStream: true }
        ),
        isMore &&
        html`<p class="cut">Looked as far as position ${
          number(found.reached)
        }: the search ends after a moment, and goes on from there.</p>`,
        pages((to) => link("/messages", { ...of, cursor: to }), cursor, found.next, isMore ? "Search further" : "Next")
      ]
    }
  })

/** An id leads to its message, anything else to the streams that have it in their names. */
export const find: Page = ({ link, query }) => {
  const q = query.typed("q")
  const id = checkMessageId(q ?? "")
  const to = Result.isSuccess(id) ? link(`/messages/${id.success}`) : link("/streams", { q })
  return Effect.succeed(HttpServerResponse.redirect(to, { status: 303 }))
}
