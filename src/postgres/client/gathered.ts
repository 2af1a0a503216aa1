/**
 * What many fibers ask at once, in few statements.
 *
 * As in `groupCommit.ts`, questions gather while statements are on their way, without a timer; where nobody else is asking,
 * a fiber asks by itself, at once.
 *
 * **Guarantees**
 *
 * - A question is put after it was asked, and has its own answer.
 * - In a transaction, or in a snapshot, a question is put alone, on its connection.
 * - When the database refuses what has gathered, each question is put alone.
 * - A fiber that is interrupted waits for nothing; what is on its way for it may still be executed.
 * - When the scope closes, all fibers that wait are interrupted.
 */
import { Array as Arr, Context, Deferred, Effect, FiberSet, References, Tracer } from "effect"
import type { Fiber, Scope } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { wasRefused } from "../../internal/transient.ts"
import { type Shared, sharedSpan } from "./sharedSpan.ts"

/** How questions of one kind are put. */
export interface Putting<Question, Answer> {
  /** Puts them in one statement; answers them in their order. */
  readonly put: (questions: Arr.NonEmptyReadonlyArray<Question>) => Effect.Effect<ReadonlyArray<Answer>, SqlError>
  /** Statements on their way at once. */
  readonly statements: number
  /** How many questions one statement puts, by their sizes; more only of one question. */
  readonly maximum: number
  /** Default: 1. */
  readonly sizeOf?: ((question: Question) => number) | undefined
  /**
   * Whether who is the first waits, too, for fibers that are about to ask: those that were woken together. Not where there were
   * none the last time. Default: no.
   */
  readonly isPatient?: boolean | undefined
  /** The span of a statement that puts so many. Absent: it has none, and is part of no other. */
  readonly span?: ((questions: number) => Shared) | undefined
}

/** Gathers questions of one kind. */
export interface Gather {
  <Question, Answer>(
    putting: Putting<Question, Answer>
  ): (question: Question) => Effect.Effect<Answer, SqlError>
}

/** A fiber that waits. */
interface Waiting<Question, Answer> {
  readonly question: Question
  readonly span: Tracer.AnySpan | undefined
  readonly isTraced: boolean
  readonly answer: (answer: Effect.Effect<Answer, SqlError>) => void
}

/** Each question is put by the fiber that asks it. */
export const alone = <Question, Answer>({ put }: Pick<Putting<Question, Answer>, "put">) => (question: Question) =>
  Effect.map(put([question]), ([answer]) => answer as Answer) // one for each

export const make = Effect.fnUntraced(function*(
  { transactionService }: Pick<SqlClient, "transactionService">
): Effect.fn.Return<Gather, never, Scope.Scope> {
  const interrupts = new Set<() => void>()
  let isClosed = false
  // Finalizers run from the last to the first: nothing is asked any more, statements end, waiting fibers are interrupted.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const interrupt of Array.from(interrupts)) interrupt()
    })
  )
  const fibers = yield* FiberSet.make()
  yield* Effect.addFinalizer(() => Effect.sync(() => isClosed = true))
  // Questions of many are no part of the span in which the store is built.
  const run = yield* Effect.updateContext(
    FiberSet.runtime(fibers)(),
    (context: Context.Context<never>) => Context.omit(Tracer.ParentSpan)(context)
  )

  return <Question, Answer>(
    { isPatient = false, maximum, put, sizeOf = () => 1, span, statements }: Putting<Question, Answer>
  ) => {
    const putOne = alone({ put })
    /** Those that no statement under way puts. */
    const waiting = new Set<Waiting<Question, Answer>>()
    let underWay = 0
    /** Whether the first one waits for others. */
    let isYielding = false
    /** Whether the last one that waited found others, or has had some since: who always asks alone need not wait. */
    let hasCompany = isPatient

    const take = (): ReadonlyArray<Waiting<Question, Answer>> => {
      const taken: Array<Waiting<Question, Answer>> = []
      let size = 0
      for (const one of waiting) {
        size += sizeOf(one.question)
        if (size > maximum && taken.length > 0) break
        waiting.delete(one)
        taken.push(one)
      }
      return taken
    }

    const putAll = (taken: Arr.NonEmptyReadonlyArray<Waiting<Question, Answer>>): Effect.Effect<void> => {
      const statement = put(Arr.map(taken, ({ question }) => question))
      // Consumers have no spans for what they do for themselves.
      const spanned = taken.every(({ isTraced }) => !isTraced)
        ? Effect.withTracerEnabled(statement, false)
        : span === undefined
        ? statement
        : sharedSpan(statement, () => span(taken.length), taken)
      return Effect.matchCauseEffect(spanned, {
        onFailure: (cause) =>
          taken.length > 1 && wasRefused(cause)
            ? Effect.forEach(taken, (one) => putAll([one]), { discard: true })
            : Effect.sync(() => {
              for (const { answer } of taken) answer(Effect.failCause(cause))
            }),
        onSuccess: (answers) =>
          Effect.sync(() => {
            for (const [i, { answer }] of taken.entries()) answer(Effect.succeed(answers[i] as Answer)) // one for each
          })
      })
    }

    const sendTaken = Effect.suspend(() => {
      const taken = take()
      return Arr.isReadonlyArrayNonEmpty(taken) ? putAll(taken) : Effect.void
    })

    // Fibers that are about to ask are waited for.
    const send = Effect.andThen(Effect.yieldNow, sendTaken)

    const wake = (): void => {
      if (waiting.size === 0 || underWay === statements || isYielding || isClosed) return
      underWay++
      run(Effect.ensuring(send, returned))
    }

    const returned = Effect.sync(() => {
      underWay--
      wake()
    })

    /**
     * Lets it gather, has it sent, and waits for its answer. It can be interrupted only behind that: others rely on it to have
     * theirs sent.
     */
    const gatherIn = (
      question: Question,
      { context }: Fiber.Fiber<unknown, unknown>,
      restore: <A, E>(waiting: Effect.Effect<A, E>) => Effect.Effect<A, E>,
      sendAll: () => void
    ): Effect.Effect<Answer, SqlError> => {
      if (isClosed) return Effect.interrupt
      const answered = Deferred.makeUnsafe<Answer, SqlError>()
      const one: Waiting<Question, Answer> = {
        question,
        span: Context.getOrUndefined(context, Tracer.ParentSpan),
        isTraced: Context.get(context, References.TracerEnabled),
        answer: (answer) => {
          forget()
          Deferred.doneUnsafe(answered, answer)
        }
      }
      const forget = () => {
        interrupts.delete(interrupt)
        waiting.delete(one)
      }
      const interrupt = () => one.answer(Effect.interrupt)
      interrupts.add(interrupt)
      waiting.add(one)
      hasCompany = isPatient
      sendAll()
      return Effect.onInterrupt(restore(Deferred.await(answered)), () => Effect.sync(forget))
    }

    return (question: Question): Effect.Effect<Answer, SqlError> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.withFiber((fiber) => {
          if (Context.getOrUndefined(fiber.context, transactionService) !== undefined) return restore(putOne(question))
          if (isClosed) return Effect.interrupt
          if (underWay > 0) return gatherIn(question, fiber, restore, wake)
          underWay++
          const putAlone = Effect.ensuring(restore(putOne(question)), returned)
          if (!hasCompany) return putAlone
          isYielding = true
          return Effect.flatMap(Effect.yieldNow, () => {
            isYielding = false
            hasCompany = waiting.size > 0
            if (!hasCompany) return putAlone
            return gatherIn(question, fiber, restore, () => {
              run(Effect.ensuring(sendTaken, returned))
              wake() // others may be too many for one statement
            })
          })
        })
      )
  }
})
