/** Aggregated streams: how far their projectors have come, and what is in their partitions. */
import { Effect } from "effect"
import type { AggregatedStreamStatus } from "../../Operator.ts"
import { type Asked, type Page, required } from "../asked.ts"
import { confirmed, field, searchForm } from "../forms.ts"
import { type Content, type Html, html, joined } from "../html.ts"
import { heading } from "../layout.ts"
import { aggregatedStreamOf } from "../one.ts"
import {
  aggregatedLink,
  badge,
  facts,
  messageLink,
  number,
  pager,
  pages,
  panel,
  part,
  span,
  streamLink,
  subscriptionLink,
  table,
  typeOf,
  when
} from "../parts.ts"

const pageSize = 50

const partitionerOf = ({ partitioner }: AggregatedStreamStatus): string => {
  switch (partitioner?._tag) {
    case undefined:
      return "a function of the application"
    case "StreamName":
      return `by stream name, ${partitioner.count} partitions`
    case "Depeche":
      return "by stream name, as depeche_db"
    case "Field":
      return `by ${
        typeof partitioner.path === "string" ? partitioner.path : partitioner.path.join(".")
      }, ${partitioner.count} partitions`
    case "Constant":
      return "one partition"
  }
}

const patternsOf = ({ patterns }: AggregatedStreamStatus): Content =>
  patterns.length === 0
    ? html`<span class="faint">nothing was linked yet</span>`
    : joined(patterns.map((pattern) => html`<code>${pattern}</code>`), ", ")

const stateOf = ({ progress }: AggregatedStreamStatus): Html =>
  progress === undefined
    ? badge("bad", "outdated objects")
    : progress.scannedAt === undefined
    ? badge("warn", "no projector yet")
    : progress.waiting > 0
    ? badge("info", "linking")
    : badge("good", "up to date")

/** How their projectors are, one a row. */
export const streamTable = (asked: Asked, all: ReadonlyArray<AggregatedStreamStatus>): Html =>
  table(
    "Aggregated streams",
    [
      { label: "Aggregated stream", kind: "title" },
      { label: "Patterns", kind: "name" },
      { label: "Partitions", kind: "number" },
      { label: "Linked", kind: "number" },
      { label: "Waiting", kind: "number" },
      { label: "First waits for", kind: "number" },
      { label: "Projector looked" },
      { label: "State" }
    ],
    all.map((each) => ({
      id: `a-${each.name}`,
      cells: [
        aggregatedLink(asked, each.name),
        patternsOf(each),
        number(each.progress?.partitions),
        number(each.progress?.messages),
        number(each.progress?.waiting),
        span(each.progress?.waitingFor),
        each.progress && when(each.progress.scannedAt, asked.now),
        stateOf(each)
      ]
    })),
    "This store has no aggregated stream. One is made when an application opens it."
  )

export const aggregatedStreams: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const cursor = query.text("cursor")
    const page = yield* operator.aggregatedStreams({ cursor, limit: pageSize })
    return {
      title: "Aggregated streams",
      section: "aggregated-streams",
      isLive: true,
      body: [
        heading("Aggregated streams"),
        streamTable(asked, page.items),
        pages((to) => link("/aggregated-streams", { cursor: to }), cursor, page.next)
      ]
    }
  })

const consumers = (asked: Asked, name: string) =>
  Effect.map(asked.live.snapshot, ({ subscriptions: all }) =>
    table(
      "Subscriptions of this stream",
      [
        { label: "Subscription", kind: "title" },
        { label: "Lag", kind: "number" },
        { label: "Age", kind: "number" },
        { label: "Parked", kind: "number" }
      ],
      all.filter(({ aggregatedStream: of }) => of === name).map((each) => ({
        cells: [
          subscriptionLink(asked, each.name),
          number(each.totals?.lag),
          span(each.totals?.age),
          number(each.totals?.parked)
        ]
      })),
      "No subscription reads this stream."
    ))

const linked = (asked: Asked, name: string, partition: number, from: number) =>
  Effect.map(asked.operator.linked(name, partition, { fromPosition: from, limit: pageSize }), (page) => {
    const to = (position: number) => asked.link("/aggregated-stream", { name, partition, from: position })
    const last = page.items.at(-1)
    return [
      table(
        "Messages of the partition",
        [
          { label: "Position", kind: "number" },
          { label: "Type", kind: "title" },
          { label: "Stream", kind: "name" },
          { label: "Version", kind: "number" },
          { label: "Global position", kind: "number" },
          { label: "Added" }
        ],
        page.items.map((each) => ({
          cells: [
            number(each.position),
            messageLink(asked, each.messageId, typeOf(each)),
            streamLink(asked, each.stream),
            number(each.version),
            number(each.globalPosition),
            when(each.addedAt, asked.now)
          ]
        })),
        from === 0
          ? `Partition ${partition} has no messages.`
          : `Partition ${partition} has no messages from position ${from} on.`
      ),
      pager([
        ["First page", from === 0 ? undefined : to(0)],
        ["Previous", from === 0 ? undefined : to(Math.max(0, from - pageSize))],
        ["Next", page.next === undefined || last === undefined ? undefined : to(last.position + 1)]
      ])
    ]
  })

export const aggregatedStream: Page = (asked) =>
  Effect.gen(function*() {
    const { link, query } = asked
    const name = yield* required("name", query.text("name"))
    const partition = (yield* query.whole("partition")) ?? 0
    const from = (yield* query.whole("from")) ?? 0
    const status = yield* aggregatedStreamOf(asked, name)
    const { progress } = status
    const subscribers = yield* part(consumers(asked, name), (shown) => shown)
    const messages = yield* part(linked(asked, name, partition, from), (shown) => shown)
    return {
      title: name,
      section: "aggregated-streams",
      isLive: from === 0,
      body: [
        heading([html`<span class="name">${name}</span> `, stateOf(status)], {
          kicker: html`<a href="${link("/aggregated-streams")}">Aggregated streams</a>`,
          aside: confirmed(asked, {
            action: "rebuild",
            fields: { aggregatedStream: name },
            label: "Rebuild …",
            text:
              html`All links of <b>${name}</b> are removed, and its projectors link all messages again. Its subscriptions stand still until each of them is reset.`,
            button: "Rebuild it",
            isDangerous: true
          })
        }),
        facts([
          ["Patterns", patternsOf(status)],
          ["Partitioner", partitionerOf(status)],
          ["Partitions", number(progress?.partitions)],
          ["Linked", progress && html`${number(progress.messages)} messages`],
          ["Waiting", progress && html`about ${number(progress.waiting)}`],
          ["First waits for", span(progress?.waitingFor)],
          ["Projector looked", progress && when(progress.scannedAt, asked.now)],
          ["Looked up to", progress && html`position ${number(progress.scannedGlobalPosition)}`]
        ]),
        panel("Subscriptions", subscribers),
        panel("Messages", [
          searchForm(asked, "/aggregated-stream", "Messages of a partition", [
            html`<input type="hidden" name="name" value="${name}">`,
            field("Partition", "partition", String(partition), { inputmode: "numeric" }),
            field("From position", "from", String(from), { inputmode: "numeric" }),
            html`<button class="primary">Show</button>`
          ]),
          messages
        ])
      ]
    }
  })
