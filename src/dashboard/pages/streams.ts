/** Streams, and the messages of one. */
import { Effect, Result } from "effect"
import { checkStreamName } from "../../internal/checks.ts"
import type { Message, StreamSummary } from "../../Operator.ts"
import { type Asked, NotFound, type Page, required } from "../asked.ts"
import { field, searchForm } from "../forms.ts"
import { html } from "../html.ts"
import { heading } from "../layout.ts"
import { messageTable, number, pager, pages, streamLink, table, when } from "../parts.ts"

/** A page is there within a second, whatever it has to look for. */
export const timeLimit = "600 millis"

const pageSize = 50

/** The pattern that this name alone is like. */
const literal = (name: string): string => name.replaceAll(/[\\%_]/g, "\\$&")

/** The stream of exactly this name, if there is one: a look into an index. */
const exactly = Effect.fnUntraced(function*({ operator }: Asked, stream: string) {
  if (Result.isFailure(checkStreamName(stream))) return []
  const { items: [last] } = yield* operator.search({ stream, limit: 1 })
  const { items: [first] } = yield* operator.search({ stream, limit: 1, direction: "forward" })
  if (last === undefined || first === undefined) return []
  const { addedAt, globalPosition, version } = last
  const found: StreamSummary = { stream, version, messages: version - first.version + 1, globalPosition, addedAt }
  return [found]
})

/** Names that begin with it follow it in their order: one look finds them, however many others there are. */
const beginning = Effect.fnUntraced(function*(asked: Asked, text: string, cursor: string | undefined) {
  const same = cursor === undefined ? yield* exactly(asked, text) : []
  const page = yield* asked.operator.streams({
    pattern: `${literal(text)}%`,
    cursor: cursor ?? text,
    limit: pageSize,
    timeLimit: 0
  })
  return { items: [...same, ...page.items], next: page.items.length === pageSize ? page.next : undefined }
})

export const streams: Page = (asked) =>
  Effect.gen(function*() {
    const { link, now, operator, query } = asked
    const q = query.typed("q")
    const cursor = query.text("cursor")
    const isPattern = q?.includes("%") === true
    const begun = q === undefined || isPattern || query.text("in") === "anywhere"
      ? undefined
      : yield* beginning(asked, q, cursor)
    const isBegun = begun !== undefined && (begun.items.length > 0 || cursor !== undefined)
    const page = isBegun ? begun : yield* operator.streams({
      pattern: q === undefined ? undefined : isPattern ? q : `%${literal(q)}%`,
      cursor,
      limit: pageSize,
      timeLimit
    })
    const anywhere = isBegun || isPattern || q === undefined ? undefined : "anywhere"
    const empty = page.next !== undefined
      ? "None of the names that were looked at is like that. Go on to look at more of them."
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
            placeholder: "its beginning, or a pattern: %-42",
            maxlength: 1000
          }),
          html`<button class="primary">Search</button>`
        ]),
        isBegun &&
        html`<p class="cut">Names that begin with <code>${q}</code>. <a href="${
          link("/streams", { q, in: "anywhere" })
        }">Look for it inside of names, too</a></p>`,
        table(
          "Streams",
          [
            { label: "Stream", kind: "title" },
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
        pages(
          (to) => link("/streams", { q, in: anywhere, cursor: to }),
          cursor,
          page.next,
          page.items.length === 0 ? "Look further" : "Next"
        )
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
