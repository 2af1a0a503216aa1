/** The store at a glance: what is written, what waits, and what is wrong. */
import { Effect } from "effect"
import { bytes } from "../../internal/readable.ts"
import type { Problem } from "../../Operator.ts"
import type { Asked, Page } from "../asked.ts"
import { type Content, type Html, html } from "../html.ts"
import { heading } from "../layout.ts"
import type { Snapshot } from "../live.ts"
import { badge, chart, number, panel, when } from "../parts.ts"
import { streamTable } from "./aggregatedStreams.ts"
import { subscriptionTable } from "./subscriptions.ts"

/** So many are shown here; their own pages have the others. */
const mostShown = 20

/** Where something is put right. */
const target = ({ link }: Asked, { aggregatedStreams, subscriptions }: Snapshot, { kind, of }: Problem) =>
  subscriptions.some(({ name }) => name === of)
    ? kind === "parked" ? link("/parked", { subscription: of }) : link("/subscription", { name: of })
    : aggregatedStreams.some(({ name }) => name === of)
    ? link("/aggregated-stream", { name: of })
    : kind === "refused"
    ? link("/scheduled", { show: "refused" })
    : kind === "schedulerDown"
    ? link("/scheduled")
    : undefined

const problem = (asked: Asked, snapshot: Snapshot, each: Problem): Html => {
  const href = target(asked, snapshot, each)
  const of = html`<b>${each.of}</b>${each.partition !== undefined && html` partition ${number(each.partition)}`}`
  return html`<li data-severity="${each.severity}"><span class="mark" aria-hidden="true"></span><span class="what">${
    href === undefined ? of : html`<a href="${href}">${of}</a>`
  } ${each.message}</span><span class="of">${each.kind}${
    each.since !== undefined && html` · ${when(each.since, asked.now)}`
  }</span></li>`
}

const healthOf = (asked: Asked, snapshot: Snapshot): Html => {
  const { isHealthy, problems } = snapshot.health
  return panel(
    "Health",
    problems.length === 0
      ? html`<p class="well">All is well: projectors and subscriptions keep up, and nothing is parked.</p>`
      : html`<ul class="problems">${problems.map((each) => problem(asked, snapshot, each))}</ul>`,
    isHealthy ? badge("good", problems.length === 0 ? "healthy" : "healthy, with warnings") : badge("bad", "unhealthy")
  )
}

const figure = (label: string, value: Content, more: Content = undefined): Html =>
  html`<div class="figure"><dt>${label}</dt><dd>${value}${more && html`<span class="of">${more}</span>`}</dd></div>`

const figures = ({ overview: { scheduled, vitals } }: Snapshot, rate: number | undefined): Html =>
  html`<dl class="figures">${
    figure("Writes", rate === undefined ? "–" : number(Math.round(rate)), "messages a second")
  }${
    vitals.messages === undefined
      ? figure("Messages", "–", "not counted yet")
      : figure("Messages", number(Math.round(vitals.messages)), "about")
  }${figure("Last position", number(vitals.lastPosition))}${
    vitals.bytes !== undefined && figure("Size", bytes(vitals.bytes), "with indexes")
  }${
    figure("Scheduled", number(scheduled.waiting), scheduled.refused > 0 && html`${number(scheduled.refused)} refused`)
  }${
    vitals.sessions !== undefined &&
    figure("Sessions", number(vitals.sessions.open), html`of ${number(vitals.sessions.maximum)}`)
  }</dl>`

const more = (asked: Asked, page: string, count: number): Content =>
  count > mostShown && html`<a href="${asked.link(page)}">All ${number(count)}</a>`

export const overview: Page = (asked) =>
  Effect.gen(function*() {
    const snapshot = yield* asked.live.snapshot
    const { aggregatedStreams, overview: all, subscriptions } = snapshot
    const rate = (yield* asked.live.samples).at(-1)?.rate
    return {
      title: "Overview",
      section: "overview",
      isLive: true,
      body: [
        heading(html`<span class="name">${all.store}</span>`, {
          kicker: "Store",
          about: html`Objects of version ${all.objects.made ?? "?"}`
        }),
        figures(snapshot, rate),
        panel("Writes", chart("rate", "", "Messages a second in the last minutes", true), "messages a second"),
        healthOf(asked, snapshot),
        panel(
          "Subscriptions",
          subscriptionTable(asked, subscriptions.slice(0, mostShown)),
          more(asked, "/subscriptions", all.subscriptions.length)
        ),
        panel(
          "Aggregated streams",
          streamTable(asked, aggregatedStreams.slice(0, mostShown)),
          more(asked, "/aggregated-streams", all.aggregatedStreams.length)
        )
      ]
    }
  })
