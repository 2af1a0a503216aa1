/** Subscriptions: how far they are, who has their partitions, why they do not go on; and what is done about it. */
import { Effect } from "effect"
import type { PartitionStatus, SubscriptionStatus } from "../../Operator.ts"
import { type Asked, type Page, required } from "../asked.ts"
import { actionButton, choice, confirmed, field } from "../forms.ts"
import { type Content, type Html, html, joined } from "../html.ts"
import { heading } from "../layout.ts"
import { subscriptionOf } from "../one.ts"
import {
  aggregatedLink,
  badge,
  chart,
  cut,
  facts,
  messageLink,
  number,
  pages,
  panel,
  part,
  progress,
  span,
  subscriptionLink,
  table,
  tabs,
  when
} from "../parts.ts"

const pageSize = 50

/** How it is, in a word or two each. */
export const stateOf = ({ totals }: SubscriptionStatus): Content => {
  if (totals === undefined) return badge("bad", "outdated objects")
  if (totals.isVoid) return badge("bad", "to be reset")
  if (totals.paused !== undefined) return badge("warn", "paused")
  const states = [
    totals.halted > 0 && badge("bad", html`${number(totals.halted)} halted`),
    totals.unknownType > 0 && badge("warn", html`${number(totals.unknownType)} unknown type`),
    totals.pausedPartitions > 0 && badge("warn", html`${number(totals.pausedPartitions)} paused`)
  ].filter((state) => state !== false)
  if (states.length > 0) return joined(states, " ")
  return totals.lag === 0
    ? badge("good", "up to date")
    : totals.claimed === 0
    ? badge("warn", "unclaimed")
    : badge("info", "working")
}

/** Subscriptions, one a row, with how they were in the last minutes. */
export const subscriptionTable = (
  asked: Asked,
  all: ReadonlyArray<SubscriptionStatus>,
  empty: Content = "This store has no subscription. One is made when an application opens it."
): Html =>
  table(
    "Subscriptions",
    [
      { label: "Subscription", kind: "title" },
      { label: "Lag", kind: "number" },
      { label: "" },
      { label: "Age", kind: "number" },
      { label: "" },
      { label: "Claimed", kind: "number" },
      { label: "Parked", kind: "number" },
      { label: "Acknowledged" },
      { label: "State" }
    ],
    all.map((each) => {
      const { name, totals } = each
      return {
        id: `s-${name}`,
        cells: [
          html`${subscriptionLink(asked, name)}<span class="of">${each.aggregatedStream}</span>`,
          number(totals?.lag),
          totals && chart("lag", name, `Lag of ${name} in the last minutes`),
          totals && (totals.age === undefined ? html`<span class="faint">–</span>` : span(totals.age)),
          totals && chart("age", name, `Age of ${name} in the last minutes`),
          totals && html`${number(totals.claimed)}<span class="faint">/${number(totals.partitions)}</span>`,
          totals && (totals.parked === 0
            ? html`<span class="faint">0</span>`
            : html`<a class="bad" href="${asked.link("/parked", { subscription: name })}">${
              number(totals.parked)
            }</a>`),
          totals && when(totals.acknowledgedAt, asked.now),
          stateOf(each)
        ]
      }
    }),
    empty
  )

export const subscriptions: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const cursor = query.text("cursor")
    const page = yield* operator.subscriptions({ cursor, limit: pageSize })
    return {
      title: "Subscriptions",
      section: "subscriptions",
      isLive: true,
      body: [
        heading("Subscriptions"),
        subscriptionTable(asked, page.items),
        pages((to) => link("/subscriptions", { cursor: to }), cursor, page.next)
      ]
    }
  })

/** Why it does not go on, if it does not. */
const reasonOf = (asked: Asked, each: PartitionStatus): Content => {
  const { checkpoint, halted, parked, paused, position, requeued, unknownType } = each
  const reasons: ReadonlyArray<Content> = [
    paused && [
      badge("warn", "paused"),
      " ",
      when(paused.since, asked.now),
      paused.reason !== undefined && html`: ${paused.reason}`,
      paused.by !== undefined && html` <span class="faint">by ${paused.by}</span>`
    ],
    halted && [
      badge("bad", "halted"),
      " ",
      when(halted.since, asked.now),
      " at ",
      messageLink(asked, halted.messageId, `position ${halted.position}`),
      html`: <span class="error">${halted.error.tag}: ${halted.error.message.slice(0, 300)}</span>`
    ],
    unknownType && [
      badge("warn", "unknown type"),
      html` <code>${cut(unknownType.type)}</code> at `,
      messageLink(asked, unknownType.messageId, `position ${unknownType.position}`)
    ],
    parked > 0 &&
    html`<a href="${asked.link("/parked", { subscription: asked.query.text("name") })}">${
      badge("bad", html`${number(parked)} parked`)
    }</a>${requeued > 0 && html` <span class="faint">${number(requeued)} of them requeued</span>`}`
  ].filter((reason) => reason !== undefined && reason !== false)
  if (reasons.length > 0) return joined(reasons, html`<br>`)
  return checkpoint >= position
    ? badge("good", "up to date")
    : each.claimedBy === undefined
    ? badge("warn", "unclaimed")
    : badge("info", "working")
}

const pauseInputs: Content = [
  field("Why", "reason", undefined, { maxlength: 1000, placeholder: "shown to others" }),
  field("Who says so", "by", undefined, { maxlength: 1000 })
]

const partitions = (asked: Asked, name: string, onlyUnfinished: boolean) =>
  Effect.gen(function*() {
    const { link, now, operator, query } = asked
    const cursor = query.text("cursor")
    const page = yield* operator.partitions(name, { cursor, limit: pageSize, onlyUnfinished })
    const show = onlyUnfinished ? "unfinished" : undefined
    return [
      table(
        "Partitions",
        [
          { label: "Partition", kind: "number" },
          { label: "Progress" },
          { label: "Lag", kind: "number" },
          { label: "Age", kind: "number" },
          { label: "Held by", kind: "name" },
          { label: "Acknowledged" },
          { label: "State", kind: "name" },
          ...asked.canAct ? [{ label: "", kind: "act" } as const] : []
        ],
        page.items.map((each) => ({
          id: `partition-${each.partition}`,
          cells: [
            number(each.partition),
            html`${
              progress(`Progress of partition ${each.partition}`, each.checkpoint + 1, each.position + 1)
            }<span class="of">${number(each.checkpoint + 1)} of ${number(each.position + 1)}</span>`,
            number(Math.max(0, each.position - each.checkpoint)),
            each.age === undefined ? html`<span class="faint">–</span>` : span(each.age),
            each.claimedBy === undefined
              ? html`<span class="faint">nobody</span>`
              : html`${each.claimedBy}<span class="of">${when(each.claimedAt, now)}</span>`,
            when(each.acknowledgedAt, now),
            reasonOf(asked, each),
            ...asked.canAct
              ? [
                each.paused === undefined
                  ? actionButton(
                    asked,
                    "pause",
                    { subscription: name, partition: each.partition },
                    "Pause",
                    `Pause partition ${each.partition}`
                  )
                  : actionButton(
                    asked,
                    "resume",
                    { subscription: name, partition: each.partition },
                    "Resume",
                    `Resume partition ${each.partition}`
                  )
              ]
              : []
          ]
        })),
        onlyUnfinished ? "All is well with every partition." : "Nothing is linked yet: there are no partitions."
      ),
      pages((to) => link("/subscription", { name, show, cursor: to }), cursor, page.next)
    ]
  })

const resetForm = (asked: Asked, name: string): Content =>
  confirmed(asked, {
    action: "reset",
    fields: { subscription: name },
    label: "Reset …",
    text:
      html`<b>${name}</b> forgets its checkpoints and its parked messages, and begins anew. What it has done already, it may do again.`,
    inputs: [
      choice("Begin with", "start", "beginning", [
        ["beginning", "the first message"],
        ["next", "what is linked from now on"],
        ["time", "what occurred at a time, or later"],
        ["position", "what is behind a global position"]
      ]),
      field("Time (UTC)", "time", undefined, { type: "datetime-local", step: 1 }, "time"),
      field("Global position", "position", undefined, { inputmode: "numeric" }, "position")
    ],
    button: "Reset it",
    isDangerous: true
  })

export const subscription: Page = (asked) =>
  Effect.gen(function*() {
    const { link, now, query } = asked
    const name = yield* required("name", query.text("name"))
    const onlyUnfinished = query.text("show") === "unfinished"
    const status = yield* subscriptionOf(asked, name)
    const { projection, totals } = status
    const shown = yield* part(partitions(asked, name, onlyUnfinished), (rows) => rows)
    const paused = totals?.paused
    return {
      title: name,
      section: "subscriptions",
      isLive: true,
      body: [
        heading([html`<span class="name">${name}</span> `, stateOf(status)], {
          kicker: html`<a href="${link("/subscriptions")}">Subscriptions</a>`,
          about: paused &&
            html`Paused ${when(paused.since, now)}${paused.by !== undefined && html` by ${paused.by}`}${
              paused.reason !== undefined && html`: ${paused.reason}`
            }`,
          aside: [
            paused === undefined
              ? confirmed(asked, {
                action: "pause",
                fields: { subscription: name },
                label: "Pause …",
                text: html`No process handles messages of <b>${name}</b> until it is resumed.`,
                inputs: pauseInputs,
                button: "Pause it"
              })
              : actionButton(asked, "resume", { subscription: name }, "Resume", `Resume ${name}`),
            resetForm(asked, name)
          ]
        }),
        facts([
          ["Aggregated stream", aggregatedLink(asked, status.aggregatedStream)],
          [
            "Of the projection",
            projection &&
            html`<a href="${link("/projections")}">${projection.name}</a>, version ${number(projection.version)}`
          ],
          ["Lag", totals && html`${number(totals.lag)} messages`],
          ["Age", totals && (totals.age === undefined ? "nothing waits" : span(totals.age))],
          ["Claimed", totals && html`${number(totals.claimed)} of ${number(totals.partitions)} partitions`],
          [
            "Parked",
            totals &&
            html`<a href="${link("/parked", { subscription: name })}">${number(totals.parked)}</a>${
              totals.requeued > 0 && html`, ${number(totals.requeued)} of them requeued`
            }`
          ],
          ["Acknowledged", totals && when(totals.acknowledgedAt, now)],
          ["Processes", totals && totals.claimedBy.length > 0 ? joined(totals.claimedBy, ", ") : undefined]
        ]),
        html`<div class="columns">${panel("Lag", chart("lag", name, `Lag of ${name} in the last minutes`, true))}${
          panel("Age", chart("age", name, `Age of ${name} in the last minutes`, true))
        }</div>`,
        panel(
          "Partitions",
          shown,
          tabs("Partitions", [
            ["All", link("/subscription", { name }), !onlyUnfinished],
            ["With something to do", link("/subscription", { name, show: "unfinished" }), onlyUnfinished]
          ])
        )
      ]
    }
  })
