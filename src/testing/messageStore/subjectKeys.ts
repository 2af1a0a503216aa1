/** What keeps the data keys of subjects: each has one key at a time, and what is forgotten stays so. */
import { assert, type Vitest } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import { Storage, type SubjectKey, type SubjectKeyStorage } from "../../Storage.ts"
import type { Part } from "../fixture.ts"

const newSubject = () => `subject '\\ "✓ ${globalThis.crypto.randomUUID()}`

/** A first key, as a store adds it: what has wrapped it is of no matter here. */
const newKey = (subject = newSubject(), keyId = "k1"): SubjectKey & Required<Pick<SubjectKey, "wrapped">> => {
  const id = globalThis.crypto.randomUUID()
  return { subject, id, generation: 1, wrapped: { keyId, data: `wrapped ${id}` } }
}

const forgotten = (key: SubjectKey): SubjectKey => ({ ...key, wrapped: undefined })

/** The next key of a subject that was forgotten. */
const nextOf = (key: SubjectKey): SubjectKey => ({ ...newKey(key.subject), id: key.id, generation: key.generation + 1 })

/** No order is promised. */
const sorted = (keys: ReadonlyArray<SubjectKey>) => keys.toSorted((a, b) => a.subject < b.subject ? -1 : 1)

const isSame = (found: ReadonlyArray<SubjectKey>, expected: ReadonlyArray<SubjectKey>, what?: string) =>
  assert.deepStrictEqual(sorted(found), sorted(expected), what)

/** The laws, for whatever is a `SubjectKeyStorage`. Other keys may be in it. */
export const subjectKeyLaws = <R>(
  it: Vitest.MethodsNonLive<R>,
  storage: Effect.Effect<SubjectKeyStorage, never, R>
): void => {
  it.effect("gives keys as they were added, by subject and by id, and leaves out what it does not have", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const long: SubjectKey = { ...newKey("✓".repeat(219) + globalThis.crypto.randomUUID()), id: newKey().id }
      const largest = { ...long, wrapped: { keyId: "'".repeat(255), data: "\\\"é".repeat(3333) } }
      const [one, other, missing] = [newKey(), newKey(), newKey()]
      const all = [one, other, largest]
      yield* keys.add(all)
      isSame(yield* keys.current([one, missing, largest, other].map(({ subject }) => subject)), all)
      isSame(yield* keys.get([largest, missing, other, one].map(({ id }) => id)), all)
      isSame(yield* keys.current([]), [])
      isSame(yield* keys.get([]), [])
    }))

  it.effect("takes a thousand at a time", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const all = Arr.makeBy(1000, () => newKey())
      yield* keys.add(all)
      isSame(yield* keys.current(all.map(({ subject }) => subject)), all)
      isSame(yield* keys.forget(all), all.map(forgotten))
      isSame(yield* keys.get(all.map(({ id }) => id)), all.map(forgotten))
    }))

  it.effect("has one key for each subject, whoever adds one at the same time", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const subject = newSubject()
      const all = Arr.makeBy(10, () => newKey(subject))
      yield* Effect.forEach(all, (key) => keys.add([key]), { concurrency: "unbounded", discard: true })
      const [kept, ...others] = yield* keys.current([subject])
      assert.lengthOf(others, 0)
      assert.deepInclude(all, kept)
      if (kept === undefined) return
      isSame(yield* keys.get(all.map(({ id }) => id)), [kept], "the others were left out")
      // A key that is there is replaced by none, of whatever generation.
      for (const generation of [1, 2]) yield* keys.add([{ ...nextOf(kept), generation }])
      isSame(yield* keys.current([subject]), [kept])
    }))

  it.effect("gives out no key that was forgotten, and remembers that it was", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const [first, other] = [newKey(), newKey()]
      yield* keys.add([first, other])
      const { subject } = first
      // The id that is given is for a subject without a key; and to forget twice is to forget.
      for (const id of [first.id, newKey().id]) isSame(yield* keys.forget([{ subject, id }]), [forgotten(first)])
      isSame(yield* keys.current([subject, other.subject]), [forgotten(first), other])
      isSame(yield* keys.get([first.id]), [forgotten(first)])
      yield* keys.add([{ ...first, wrapped: newKey().wrapped }])
      isSame(yield* keys.current([subject]), [forgotten(first)], "a key of the same generation was added")
      const second = nextOf(first)
      yield* keys.add([second])
      isSame(yield* keys.current([subject]), [second])
      isSame(yield* keys.get([first.id]), [second], "the id has another subject")
      isSame(yield* keys.forget([first]), [forgotten(second)])
      yield* keys.add([second])
      isSame(yield* keys.current([subject]), [forgotten(second)], "a key of an earlier generation was added")
    }))

  it.effect("remembers that a subject was forgotten that never had a key", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const { id, subject } = newKey()
      const never = { subject, id, generation: 0, wrapped: undefined }
      for (const given of [id, newKey().id]) isSame(yield* keys.forget([{ subject, id: given }]), [never])
      isSame(yield* keys.current([subject]), [never])
      isSame(yield* keys.get([id]), [never])
      const first = nextOf(never)
      yield* keys.add([first])
      isSame(yield* keys.current([subject]), [first])
    }))

  it.effect("has a key of nobody, for snapshots", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const [before] = yield* keys.current([""])
      const added = before === undefined ? newKey("") : nextOf(before)
      if (before?.wrapped === undefined) yield* keys.add([added])
      const expected = before?.wrapped === undefined ? added : before
      isSame(yield* keys.current([""]), [expected])
      isSame(yield* keys.forget([{ subject: "", id: newKey().id }]), [forgotten(expected)])
    }))

  it.effect("finds what other keys have wrapped, page by page, and replaces it where it is still so", () =>
    Effect.gen(function*() {
      const keys = yield* storage
      const keyId = `k2 ${globalThis.crypto.randomUUID()}`
      const own = Arr.makeBy(5, () => newKey())
      const [changed, gone, again] = [newKey(), newKey(), newKey()]
      const done = newKey(newSubject(), keyId)
      const all = [...own, changed, gone, again, done]
      yield* keys.add(all)
      yield* keys.forget([gone])

      const ids: Array<string> = []
      for (let after = "00000000-0000-0000-0000-000000000000";;) {
        const page = yield* keys.wrappedByOthers({ keyId, after, limit: 5 })
        if (page.length === 0) break
        assert.isAtMost(page.length, 5)
        for (const { id, wrapped } of page) {
          assert.isTrue(after < id, "ids rise")
          assert.isTrue(wrapped !== undefined && wrapped.keyId !== keyId)
          ids.push(after = id)
        }
      }
      const found = all.filter(({ id }) => ids.includes(id))
      isSame(found, [...own, changed, again])

      const rewrapped = (key: typeof done) => ({
        ...key,
        before: { keyId: "k1", data: `wrapped ${key.id}` },
        wrapped: { keyId, data: `again ${key.id}` }
      })
      // One that was wrapped anew meanwhile, one that was forgotten, and one of another generation stay as they are.
      assert.strictEqual(yield* keys.rewrap([rewrapped(changed)]), 1)
      const outdated = [rewrapped(changed), rewrapped(gone), { ...rewrapped(again), generation: 2 }]
      assert.strictEqual(yield* keys.rewrap([...own.map(rewrapped), ...outdated]), own.length)
      assert.strictEqual(yield* keys.rewrap([]), 0)
      isSame(yield* keys.current(all.map(({ subject }) => subject)), [
        ...[...own, changed].map((key) => ({ ...key, wrapped: rewrapped(key).wrapped })),
        forgotten(gone),
        again,
        done
      ])
    }))
}

export const subjectKeys: Part = (it) => subjectKeyLaws(it, Effect.map(Storage, ({ subjectKeys: kept }) => kept))
