/** What the errors of the library say of themselves. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as EffectMessageStore from "effect-message-store"
import { InvalidNameError, StreamDefinitionError } from "effect-message-store"
import { toFailure } from "../src/subscription/failure.ts"

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

describe("failures of handlers", () => {
  it("are kept, whatever they do when they are read", () => {
    const throws = (): never => {
      throw new Error("not readable")
    }
    const revoked = (): object => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      return proxy
    }
    for (
      const field of [
        {
          get toJSON() {
            return throws()
          }
        },
        { toJSON: throws },
        new Proxy({}, { has: throws, get: throws, ownKeys: throws }),
        revoked()
      ]
    ) {
      const failure = toFailure({ _tag: "Hostile", message: "no", field, after: 1 })
      assert.deepInclude(failure, { tag: "Hostile", message: "no" })
      assert.strictEqual(failure.fields?.["after"], 1)
    }
    for (const error of [revoked(), Object.assign(() => 1, { toString: throws }), Object.create(null), Symbol("s")]) {
      assert.isString(JSON.stringify(toFailure(error)))
    }
  })

  it("are not read further than they are kept", () => {
    let reads = 0
    const everything: Record<string, unknown> = {}
    for (let i = 0; i < 50; i++) {
      Object.defineProperty(everything, `field${i}`, {
        enumerable: true,
        get: () => {
          reads++
          return everything
        }
      })
    }
    const failure = toFailure({ _tag: "Cyclic", first: 1, everything })
    assert.strictEqual(failure.tag, "Cyclic")
    assert.strictEqual(failure.fields?.["first"], 1)
    assert.isBelow(reads, 50_000)
    assert.isBelow(JSON.stringify(failure).length, 20_000)
  })
})
