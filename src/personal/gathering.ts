/** Questions of concurrent fibers, asked together: while one is under way, the next ones gather, and leave in one. */
import { type Context, Deferred, Effect, Exit } from "effect"

interface Asked<A, E> {
  readonly names: ReadonlyArray<string>
  readonly answer: Deferred.Deferred<ReadonlyArray<A>, E>
}

/** Whoever asks is answered by a question that begins afterwards; the answer may be of others' names as well. */
export const gathering = <A, E>(
  ask: (names: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<A>, E>
): (names: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<A>, E> => {
  let waiting: ReadonlyArray<Asked<A, E>> = []
  let isAway = false

  const askAll = Effect.gen(function*() {
    while (waiting.length > 0) {
      const asked = waiting
      waiting = []
      const exit = yield* Effect.exit(ask(Array.from(new Set(asked.flatMap(({ names }) => names)))))
      for (const { answer } of asked) Deferred.doneUnsafe(answer, exit)
    }
  })

  return (names) =>
    Effect.withFiber((fiber) => {
      const answer = Deferred.makeUnsafe<ReadonlyArray<A>, E>()
      waiting = [...waiting, { names, answer }]
      if (!isAway) {
        isAway = true
        // In a fiber of its own: who asked first may be interrupted, and others wait for the same answer.
        Effect.runForkWith(fiber.context as Context.Context<never>)(askAll).addObserver(() => {
          isAway = false
          for (const left of waiting) Deferred.doneUnsafe(left.answer, Exit.interrupt())
          waiting = []
        })
      }
      return Deferred.await(answer)
    })
}
