/** Projections: their versions, how far each is, and which one readers see. */
import { Effect } from "effect"
import type { ProjectionStatus, VersionStatus } from "../../Operator.ts"
import { subscriptionOf } from "../../Storage.ts"
import type { Asked, Page } from "../asked.ts"
import { confirmed, field } from "../forms.ts"
import { type Content, html } from "../html.ts"
import { heading } from "../layout.ts"
import { aggregatedLink, badge, number, pages, panel, progress, table, type Tone, when } from "../parts.ts"

const pageSize = 50

const states: Readonly<Record<VersionStatus["state"], Tone>> = {
  promoted: "good",
  building: "info",
  halted: "bad",
  standby: "quiet"
}

const lagField = field("Messages that may be missing", "lag", undefined, {
  inputmode: "numeric",
  placeholder: "none"
})

const actions = (asked: Asked, projection: string, { state, version }: VersionStatus): Content =>
  state !== "promoted" && html`<div class="acts">${
    confirmed(asked, {
      action: "promote",
      fields: { projection, version },
      label: "Promote …",
      describedAs: `Promote version ${version} of ${projection}`,
      text: html`Readers of <b>${projection}</b> see version ${version} from then on, all at once.`,
      inputs: lagField,
      button: "Promote it"
    })
  }${
    confirmed(asked, {
      action: "drop",
      fields: { projection, version },
      label: "Drop …",
      describedAs: `Drop version ${version} of ${projection}`,
      text: html`Version ${version} of <b>${projection}</b> is removed, with its tables and its subscription.`,
      button: "Drop it",
      isDangerous: true
    })
  }</div>`

const versions = (asked: Asked, { name, versions: all }: ProjectionStatus): Content =>
  table(
    `Versions of ${name}`,
    [
      { label: "Version", kind: "number" },
      { label: "State" },
      { label: "Progress" },
      { label: "Handled", kind: "number" },
      { label: "Halted", kind: "number" },
      { label: "Made" },
      { label: "Promoted" },
      { label: "Used" },
      ...asked.canAct ? [{ label: "", kind: "act" } as const] : []
    ],
    all.toSorted((a, b) => b.version - a.version).map((each) => ({
      id: `v-${name}-${each.version}`,
      cells: [
        html`<a href="${asked.link("/subscription", { name: subscriptionOf(name, each.version) })}">${
          number(each.version)
        }</a>`,
        badge(states[each.state], each.state),
        progress(`Progress of version ${each.version} of ${name}`, each.handled, each.total),
        html`${number(each.handled)}<span class="faint"> of ${number(each.total)}</span>`,
        each.halted === 0 ? html`<span class="faint">0</span>` : html`<span class="bad">${number(each.halted)}</span>`,
        when(each.createdAt, asked.now),
        when(each.promotedAt, asked.now),
        when(each.usedAt, asked.now),
        ...asked.canAct ? [actions(asked, name, each)] : []
      ]
    })),
    "No version of it was made yet."
  )

const canRollBack = ({ versions: all }: ProjectionStatus): boolean => {
  const promoted = all.find(({ state }) => state === "promoted")
  return promoted !== undefined &&
    all.some(({ promotedAt, version }) => promotedAt !== undefined && version < promoted.version)
}

export const projections: Page = (asked) =>
  Effect.gen(function*() {
    const { link, operator, query } = asked
    const cursor = query.text("cursor")
    const page = yield* operator.projections({ cursor, limit: pageSize })
    return {
      title: "Projections",
      section: "projections",
      isLive: true,
      body: [
        heading("Projections", {
          about: "Read models with versions: a new one is built beside the one that readers see."
        }),
        page.items.length === 0
          ? html`<p class="empty">This store has no projection. One is made when an application opens it.</p>`
          : page.items.map((each) =>
            panel(each.name, versions(asked, each), [
              html`of ${aggregatedLink(asked, each.aggregatedStream)} `,
              canRollBack(each) && confirmed(asked, {
                action: "rollback",
                fields: { projection: each.name },
                label: "Roll back …",
                describedAs: `Roll back ${each.name}`,
                text: html`Readers of <b>${each.name}</b> see the lower version again that they saw last.`,
                inputs: lagField,
                button: "Roll it back",
                isDangerous: true
              })
            ])
          ),
        pages((to) => link("/projections", { cursor: to }), cursor, page.next)
      ]
    }
  })
