/**
 * Where streams and tags end, for many fibers in one statement: decisions that wait for their turns ask about tags of their own.
 *
 * As in `groupCommit.ts`, questions gather while statements are on their way, without a timer; where nobody else is asking,
 * a fiber asks by itself, at once.
 *
 * **Guarantees**
 *
 * - Each answer is of one moment, after its question was put.
 * - In a transaction, or in a snapshot, a question is put alone, on its connection.
 * - When the database refuses what has gathered, each question is put alone.
 * - A fiber that is interrupted waits for nothing.
 */
import { Context, Deferred, Effect, FiberSet, Tracer } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { attribute, attributesOf } from "../internal/telemetry.ts"
import { wasRefused } from "../internal/transient.ts"
import type { Ends, MessageStorage } from "../Storage.ts"
import { sharedSpan } from "./client/sharedSpan.ts"

/** What is asked, by a fiber that waits for the answer. */
interface Question {
  readonly streams: ReadonlyArray<string>
  readonly tags: ReadonlyArray<string>
  readonly span: Tracer.AnySpan | undefined
  readonly answer: (ends: Effect.Effect<Ends, SqlError>) => void
}

/** Statements on their way at once: one is answered while the next is being sent. */
const maximumStatements = 2

/** How many streams and tags one statement asks about; more only of one question. */
const maximumNames = 1000

/** When the scope closes, all fibers that wait are interrupted. */
export const make = Effect.fnUntraced(function*(
  { transactionService }: Pick<SqlClient, "transactionService">,
  ends: MessageStorage["ends"],
  store: string
): Effect.fn.Return<MessageStorage["ends"], never, Scope.Scope> {
  const attributes = attributesOf(store, "ends", undefined)
  const unanswered = new Set<Question>()
  /** Those of them that no statement under way asks. */
  const waiting = new Set<Question>()
  let isClosed = false
  let underWay = 0
  // Finalizers run from the last to the first: nothing is asked any more, statements end, waiting fibers are interrupted.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const { answer } of unanswered) answer(Effect.interrupt)
    })
  )
  const fibers = yield* FiberSet.make()
  yield* Effect.addFinalizer(() => Effect.sync(() => isClosed = true))
  // Questions of many are no part of the span in which the store is built.
  const run = yield* Effect.updateContext(
    FiberSet.runtime(fibers)(),
    (context: Context.Context<never>) => Context.omit(Tracer.ParentSpan)(context)
  )

  const take = (): ReadonlyArray<Question> => {
    const taken: Array<Question> = []
    let names = 0
    for (const question of waiting) {
      names += question.streams.length + question.tags.length
      if (names > maximumNames && taken.length > 0) break
      waiting.delete(question)
      taken.push(question)
    }
    return taken
  }

  const put = (questions: ReadonlyArray<Question>): Effect.Effect<void> =>
    Effect.matchCauseEffect(
      sharedSpan(
        ends(questions.flatMap(({ streams }) => streams), questions.flatMap(({ tags }) => tags)),
        () => ({ name: `ends ${store}`, attributes: { ...attributes, [attribute.questions]: questions.length } }),
        questions
      ),
      {
        onFailure: (cause) =>
          questions.length > 1 && wasRefused(cause)
            ? Effect.forEach(questions, (question) => put([question]), { discard: true })
            : Effect.sync(() => {
              for (const { answer } of questions) answer(Effect.failCause(cause))
            }),
        onSuccess: ({ editions, heads, tags }) =>
          Effect.sync(() => {
            let [head, tag] = [0, 0]
            for (const question of questions) {
              const [toHead, toTag] = [head + question.streams.length, tag + question.tags.length]
              question.answer(Effect.succeed({
                heads: heads.slice(head, toHead),
                tags: tags.slice(tag, toTag),
                editions: [
                  ...editions.slice(head, toHead),
                  ...editions.slice(heads.length + tag, heads.length + toTag)
                ],
                snapshots: []
              }))
              head = toHead
              tag = toTag
            }
          })
      }
    )

  // Fibers that are about to ask are waited for.
  const send = Effect.andThen(
    Effect.yieldNow,
    Effect.suspend(() => {
      const questions = take()
      return questions.length === 0 ? Effect.void : put(questions)
    })
  )

  const wake = (): void => {
    if (waiting.size === 0 || underWay === maximumStatements || isClosed) return
    underWay++
    run(Effect.ensuring(send, returned))
  }

  const returned = Effect.sync(() => {
    underWay--
    wake()
  })

  return (streams, tags, snapshots = []) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        // A snapshot of a fold may be large: nobody else waits for it.
        if (snapshots.length > 0 || Context.getOrUndefined(fiber.context, transactionService) !== undefined) {
          return restore(ends(streams, tags, snapshots))
        }
        if (isClosed) return Effect.interrupt
        if (underWay === 0) {
          underWay++
          return Effect.ensuring(restore(ends(streams, tags)), returned)
        }
        const answered = Deferred.makeUnsafe<Ends, SqlError>()
        const question: Question = {
          streams,
          tags,
          span: Context.getOrUndefined(fiber.context, Tracer.ParentSpan),
          answer: (answer) => {
            unanswered.delete(question)
            Deferred.doneUnsafe(answered, answer)
          }
        }
        unanswered.add(question)
        waiting.add(question)
        wake()
        return Effect.onInterrupt(restore(Deferred.await(answered)), () =>
          Effect.sync(() => {
            unanswered.delete(question)
            waiting.delete(question)
          }))
      })
    )
})
