/** While one half of those who decide on the same is being written, the other half has its answers, and decides again. */
import { assert } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Decision from "../../Decision.ts"
import { newStream, outsider, type Part } from "../fixture.ts"
import { names, newCourse, observed, started, stored, students, Subscribed, until } from "./hotFixture.ts"

type Fibers = ReadonlyArray<Fiber.Fiber<void, unknown>>

/**
 * 40 who subscribe twice: the first one leaves alone, and the others behind it. The second append and the third are held. How many
 * have an answer is noted when an append begins, the first one aside.
 */
const twice = Effect.fnUntraced(function*(
  course: string,
  options?: {
    /** What the one of this number does between both. */
    readonly between?: (i: number, fibers: Fibers) => Effect.Effect<unknown>
    readonly beforeThird?: Effect.Effect<unknown, SqlError>
  }
) {
  const given = yield* observed
  const { appends, before, gate, store } = given
  const [second, third] = [yield* Latch.make(), yield* Latch.make()]
  const answers: Array<string> = []
  const answered: Array<number> = []
  const held = [second.await, Effect.andThen(third.await, options?.beforeThird ?? Effect.void), Effect.void]
  for (const [i, effect] of held.entries()) {
    before.set(
      i + 2,
      Effect.suspend(() => {
        answered.push(answers.length)
        return effect
      })
    )
  }
  /** What each was decided on. */
  const seen = new Map<string, string>()
  const subscribe = (student: string, made: () => void) =>
    Effect.map(
      store.decide({ taken: Decision.tagged({ course }, students) }, ({ taken }) => {
        made()
        seen.set(student, taken.join())
        return { stream: newStream(), messages: new Subscribed({ course, student }) }
      }),
      () => void answers.push(student)
    )
  const fibers: Array<Fiber.Fiber<void, unknown>> = []
  const begun = yield* started<void, unknown>(
    given,
    names(40).map((name, i) => (made) =>
      subscribe(name, made).pipe(
        Effect.andThen(Effect.suspend(() => options?.between?.(i, fibers) ?? Effect.void)),
        Effect.andThen(Effect.suspend(() => subscribe(again(name), () => {})))
      )
    )
  )
  fibers.push(...begun)
  yield* gate.open
  yield* until(() => appends.length === 2)
  yield* second.open
  yield* until(() => appends.length === 3)
  return { ...given, answered, fibers, seen, third }
})

const again = (name: string) => `${name} again`

export const halves: Part = (it) => {
  it.effect("lets the next half leave before the one that is written has its answers", () =>
    Effect.gen(function*() {
      const course = newCourse()
      const { answered, appends, fibers, seen, store, third } = yield* twice(course)
      yield* third.open
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(appends.map(({ length }) => length), [1, 39, 20, 20])
      // The third append begins when half of those who are about to decide again have done so.
      assert.deepStrictEqual(answered, [0, 20, 40])
      const all = yield* stored(store, course)
      assert.deepStrictEqual(all, [...names(40), ...names(40).map(again)])
      for (const [i, student] of all.entries()) assert.strictEqual(seen.get(student), all.slice(0, i).join())
    }).pipe(Effect.scoped))

  it.effect("decides again in order what is void, without those who are interrupted while answers are given", () =>
    Effect.gen(function*() {
      const course = newCourse()
      const other = yield* observed
      const outside = yield* outsider
      const elsewhere = new Subscribed({ course, student: "elsewhere" })
      const { answered, fibers, seen, store, third } = yield* twice(course, {
        between: (i, all) => {
          const interrupted = i === 10 ? all[30] : i === 25 ? all[5] : undefined
          return interrupted === undefined ? Effect.void : Fiber.interrupt(interrupted)
        },
        beforeThird: Effect.orDie(outside(other.store.write(newStream(), elsewhere)))
      })
      yield* third.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(
        exits.flatMap((exit, i) => Exit.hasInterrupts(exit) ? [i] : []),
        [5, 30] // one whose second decision was under way, and one that was written, and had no answer yet
      )
      assert.deepStrictEqual(answered.slice(0, 2), [0, 20])
      const left = names(40).filter((_, i) => i !== 5 && i !== 30)
      const all = yield* stored(store, course)
      assert.deepStrictEqual(all, [...names(40), "elsewhere", ...left.map(again)])
      for (const [i, student] of all.entries()) {
        if (student !== "elsewhere") assert.strictEqual(seen.get(student), all.slice(0, i).join())
      }
    }).pipe(Effect.scoped))
}
