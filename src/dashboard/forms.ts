/** Forms: what searches, and what changes something. */
import type { Asked } from "./asked.ts"
import { attributes, type Content, type Html, html } from "./html.ts"

type Fields = Readonly<Record<string, string | number | undefined>>

const hidden = (fields: Fields): Content =>
  Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [html`<input${attributes({ type: "hidden", name, value })}>`]
  )

/** A form that changes something: it comes back to this page. `fields` say what is meant. */
export const actionForm = (
  asked: Asked,
  action: string,
  fields: Fields,
  body: Content,
  options: { readonly id?: string; readonly className?: string } = {}
): Html =>
  html`<form${
    attributes({ method: "post", action: asked.link(`/actions/${action}`), id: options.id, class: options.className })
  }>${hidden({ form: asked.formToken, back: asked.here, ...fields })}${body}</form>`

/** A button that does something at once: only what is easily undone. */
export const actionButton = (
  asked: Asked,
  action: string,
  fields: Fields,
  label: string,
  describedAs: string = label
): Content =>
  asked.canAct &&
  actionForm(asked, action, fields, html`<button${attributes({ "aria-label": describedAs })}>${label}</button>`, {
    className: "inline"
  })

/** What has to be said twice: opens, tells what will happen, and has the button that does it. */
export const confirmed = (
  asked: Asked,
  options: {
    readonly action: string
    readonly fields: Fields
    /** What opens it. */
    readonly label: string
    /** What it is of, for who does not see where it stands. */
    readonly describedAs?: string
    /** What will happen. */
    readonly text: Content
    readonly inputs?: Content
    readonly button: string
    readonly isDangerous?: boolean
  }
): Content =>
  asked.canAct &&
  html`<details class="confirm"><summary class="button"${
    attributes({ "aria-label": options.describedAs })
  }>${options.label}</summary>${
    actionForm(
      asked,
      options.action,
      options.fields,
      html`<p>${options.text}</p>${options.inputs}<div class="answers"><button type="button" class="cancel">Cancel</button><button${
        attributes({ class: options.isDangerous === true ? "danger" : "primary" })
      }>${options.button}</button></div>`,
      { className: "card" }
    )
  }</details>`

/** A field with its name above it. */
export const field = (
  label: string,
  name: string,
  value: string | undefined,
  more: Readonly<Record<string, string | number | boolean | undefined>> = {},
  /** The choice that it belongs to: it is shown with that alone. */
  only?: string
): Html =>
  html`<label class="field"${attributes({ "data-only": only })}><span>${label}</span><input${
    attributes({ name, value, autocomplete: "off", spellcheck: "false", ...more })
  }></label>`

export const choice = (
  label: string,
  name: string,
  value: string | undefined,
  options: ReadonlyArray<readonly [value: string, label: string]>
): Html =>
  html`<label class="field"><span>${label}</span><select name="${name}">${
    options.map(([each, text]) =>
      html`<option${attributes({ value: each, selected: each === value })}>${text}</option>`
    )
  }</select></label>`

/** A form that asks: what is entered becomes a part of the URL. */
export const searchForm = (asked: Asked, page: string, label: string, body: Content): Html =>
  html`<form class="search" role="search"${
    attributes({ action: asked.link(page), "aria-label": label })
  }>${body}</form>`
