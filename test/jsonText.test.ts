/** JSON as text, whatever its depth. */
import { assert, it } from "@effect/vitest"
import { DateTime, Duration } from "effect"
import { toText } from "../src/internal/jsonText.ts"

const hostile: unknown = JSON.parse("{\"__proto__\":{\"a\":[true,null,-1e21]},\"toJSON\":1,\"\":\"\"}")
const values = [null, "a\"\n\ud800", [], {}, [[], {}, [1]], { a: undefined, b: [undefined], c: NaN }, hostile]

it("is as JSON.stringify writes it, by lines or on one", () => {
  for (const value of [...values, values, undefined]) {
    assert.strictEqual(toText(value), JSON.stringify(value, undefined, 2) ?? "null")
    assert.strictEqual(toText(value, { indented: false }), JSON.stringify(value) ?? "null")
  }
  assert.strictEqual(
    toText({ at: DateTime.makeUnsafe(0), for: Duration.seconds(1) }, { indented: false }),
    "{\"at\":\"1970-01-01T00:00:00.000Z\",\"for\":1000}"
  )
})

it("may be the beginning of it", () => {
  const [whole, beginning] = [toText(values), toText(values, { enough: 20 })]
  assert.isTrue(whole.startsWith(beginning) && beginning.length >= 20 && beginning.length < whole.length)
})

it("of a hundred thousand levels is no more than some times as large", () => {
  const text = `${"[".repeat(100_000)}${"]".repeat(100_000)}`
  const deep: unknown = JSON.parse(text)
  assert.strictEqual(toText(deep, { indented: false }), text)
  assert.isBelow(toText(deep).length, 50 * text.length)
})
