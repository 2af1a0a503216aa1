/** Streams, and the messages of one. */
import { Effect } from "effect"
import type { Message } from "../../Operator.ts"
import { NotFound, type Page, required } from "../asked.ts"
import { field, searchForm } from "../forms.ts"
import { html } from "../html.ts"
import { heading } from "../layout.ts"
import { messageTable, number, pager, streamLink, table, when } from "../parts.ts"

/** A page is there within a second, whatever it has to look for. */
export const timeLimit = "600 millis"

const pageSize = 50

/** The pattern that this name alone is like. */
const literal = (name: string): string => name.replaceAll(/[\\%_]/g, "\\$&")

/** What is searched for: a part of the name, or a pattern if it has `%`. */
const patternOf = (text: string): string => text.includes("%") ? text : `%${literal(text)}%`

export const streams: Page = (asked) =>
  Effect.gen(function*() {
    const { link, now, operator, query } = asked
    const q = query.typed("q")
    const cursor = query.text("cursor")
    const pattern = q === undefined ? undefined : patternOf(q)
    const page = yield* operator.streams({ pattern, cursor, limit: pageSize, timeLimit })
    const empty = page.next !== undefined
      ? "None of the names that were looked at matches. Go on to look at more of them."
      : q === undefined
      ? "No stream has been written to yet."
      : html`No stream has a name like <code>${q}</code>.`
    return {
      title: "Streams",
      section: "streams",
      isLive: q === undefined && cursor === undefined,
      body: [
        heading("Streams"),
        searchForm(asked, "/streams", "Streams", [
          field("Name", "q", q, {
            type: "search",
            placeholder: "a part of it, or a pattern: order-%",
            maxlength: 1000
          }),
          html`<button class="primary">Search</button>`
        ]),
        table(
          "Streams",
          [
            { label: "Stream", kind: "name" },
            { label: "Messages", kind: "number" },
            { label: "Version", kind: "number" },
            { label: "Last position", kind: "number" },
            { label: "Last message" }
          ],
          page.items.map((each) => ({
            cells: [
              streamLink(asked, each.stream),
              number(each.messages),
              number(each.version),
              number(each.globalPosition),
              when(each.addedAt, now)
            ]
          })),
          empty
        ),
        pager([
          ["First page", cursor === undefined ? undefined : link("/streams", { q })],
          [page.items.length === 0 ? "Look further" : "Next", page.next && link("/streams", { q, cursor: page.next })]
        ])
      ]
    }
  })

/** The newest first, whichever way they were read. */
const newestFirst = (items: ReadonlyArray<Message>) => items.toSorted((a, b) => b.version - a.version)

export const stream: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const name = yield* required("name", query.text("name"))
    const before = yield* query.whole("before")
    const after = yield* query.whole("after")
    const isForward = after !== undefined
    const found = yield* operator.search({
      stream: name,
      direction: isForward ? "forward" : "backward",
      cursor: isForward ? String(after) : before === undefined ? undefined : String(before),
      limit: pageSize
    })
    const items = newestFirst(found.items)
    const [newest, oldest] = [items[0], items.at(-1)]
    if (newest === undefined && before === undefined && after === undefined) {
      return yield* Effect.fail(new NotFound(`The stream “${name}” has no messages`))
    }
    const isEnd = isForward ? found.next === undefined : before === undefined
    const isBeginning = isForward ? after === 0 : found.next === undefined
    const to = (more: Readonly<Record<string, number | undefined>>) => link("/stream", { name, ...more })
    return {
      title: name,
      section: "streams",
      isLive: before === undefined && after === undefined,
      body: [
        heading(html`<span class="name">${name}</span>`, {
          kicker: html`<a href="${link("/streams")}">Streams</a>`,
          about: newest && html`Versions ${number(oldest?.version)} to ${number(newest.version)}, the newest first`,
          aside: html`<a class="button" href="${link("/messages", { pattern: literal(name) })}">Search in it</a>`
        }),
        messageTable(asked, items, "There are no messages on this page.", { withStream: false }),
        pager([
          ["Newest", isEnd ? undefined : to({})],
          ["Newer", isEnd || newest === undefined ? undefined : to({ after: newest.version })],
          ["Older", isBeginning || oldest === undefined ? undefined : to({ before: oldest.version })],
          ["Oldest", isBeginning ? undefined : to({ after: 0 })]
        ])
      ]
    }
  })
