/** What the errors of the library say of themselves. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as EffectMessageStore from "effect-message-store"
import { InvalidNameError, StreamDefinitionError } from "effect-message-store"

const errors = Object.entries(EffectMessageStore).filter(([name]) => name.endsWith("Error"))

describe("errors", () => {
  it("are printed with their own names and with what they are about", () => {
    const invalid = new InvalidNameError({ identifier: "edge", reason: "is taken by the store" })
    assert.match(String(invalid), /InvalidNameError: "edge" is taken by the store$/)
    const definition = new StreamDefinitionError({ aggregatedStream: "a", stored: "{}", given: "[]" })
    assert.match(String(definition), /StreamDefinitionError: aggregated stream "a" was built by/)
  })

  for (const [name, error] of errors) {
    it(`have no field that hides what every Error has: ${name}`, () => {
      assert.isTrue(Schema.isSchema(error))
      const fields = Object.keys((error as unknown as { readonly fields: object }).fields)
      assert.deepStrictEqual(fields.filter((field) => ["name", "message", "stack"].includes(field)), [])
    })
  }
})
