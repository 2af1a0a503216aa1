/**
 * Group commit, in the application: the writes of many fibers leave in one statement.
 *
 * While one batch is on its way, the items of other fibers gather, and leave together with the next. There is no timer:
 * where nobody else is writing, a fiber sends its item itself, at once. Of fibers that write to one stream, a half is written to
 * the database while the other half goes on with its answers.
 *
 * **Guarantees**
 *
 * - Each item has its own outcome, as if it had been appended alone; items of one stream keep the order they came in.
 * - A stream is in one batch at a time, and nobody waits behind a stream or a tag that another transaction holds: a batch
 *   takes the locks that are free; items that need others wait apart, without keeping a connection of the pool.
 * - When the database refuses a batch, only the culprit fails. When the connection is lost, each item fails with that
 *   error: whether it was stored is unknown.
 * - An item whose fiber is interrupted is not written, unless the statement that writes it is under way already.
 *
 * `groupCommit/queues.ts` has the items that gather, `statements.ts` those under way, `held.ts` those that wait for a lock.
 */
import { Context, Deferred, Effect, Fiber, FiberSet, Tracer } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem, AppendOutcome } from "../Storage.ts"
import * as Held from "./groupCommit/held.ts"
import { type Entry, type Leaving, Queues } from "./groupCommit/queues.ts"
import * as Statements from "./groupCommit/statements.ts"
import { isConditional, tagLocksOf } from "./locks.ts"

/**
 * Batches on their way at once: one is written while the next is being sent. The second one has to be worth it: fewer items cost
 * both sides less together than apart.
 */
const maximumLanes = 2
const worthALane = 16

/** Unless the first one takes so many milliseconds: it may wait for a transaction that has one of its ids. */
const patience = 20

/** An item of so many messages leaves by itself, beside the batches: together with others it would cost hardly less. */
const largeItem = 64
/** As many of these at once; others gather. */
const maximumLarge = 4

/**
 * The append of one item, together with those of other fibers. When the scope closes, all fibers that wait are
 * interrupted, and nothing is taken any more.
 */
export const make = Effect.fnUntraced(function*(
  append: Statements.Append,
  locks: Held.Locks,
  store: string
): Effect.fn.Return<(item: AppendItem) => Effect.Effect<AppendOutcome, SqlError>, never, Scope.Scope> {
  const unanswered = new Set<Entry>()
  let isClosed = false
  // Finalizers run from the last to the first: nothing is taken any more, statements end, waiting fibers are interrupted.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const entry of unanswered) entry.answer(Effect.interrupt)
    })
  )
  const fibers = yield* FiberSet.make()
  yield* Effect.addFinalizer(() => Effect.sync(() => isClosed = true))
  // Writes are no part of the span in which the store is built.
  const run = yield* Effect.updateContext(
    FiberSet.runtime(fibers)(),
    (context: Context.Context<never>) => Context.omit(Tracer.ParentSpan)(context)
  )

  const queues = new Queues()
  const traced = Statements.makeTraced(store)
  const statements = Statements.make(run, append, traced)
  /** Lanes that are open, and how many of them have a batch on its way: the others are about to take one. */
  let open = 0
  let busy = 0
  /** Large items that have left by themselves. */
  let large = 0
  /** How many batches have left. */
  let departed = 0
  let isWatching = false

  const wake = (): void => {
    if (!queues.hasReady || open > busy || open === maximumLanes) return
    if (open > 0 && queues.waiting < worthALane) return watch()
    open++
    run(lane(open === 1))
  }

  /** Opens a lane for however few, if the batch on its way takes long. */
  const watch = (): void => {
    if (isWatching) return
    isWatching = true
    const before = departed
    run(Effect.andThen(
      Effect.sleep(patience),
      Effect.sync(() => {
        isWatching = false
        if (departed > before || open !== 1 || !queues.hasReady) return wake()
        open++
        run(lane(false))
      })
    ))
  }

  const settled = (items: ReadonlyArray<Leaving>, left: ReadonlyArray<Entry>): void => {
    for (const queue of queues.settle(items, left)) held.hold(queue)
    wake()
  }

  const held = Held.make(run, queues, locks, statements, settled, traced)

  const take = (returned = 0) => queues.take(maximumLanes - busy, worthALane, returned)

  /** Sends batches until nothing is ready. */
  const lane = Effect.fnUntraced(function*(isFirst: boolean) {
    if (!isFirst) yield* Effect.yieldNow // fibers that are about to write join the batch
    let concluded = Statements.nothing
    for (let batch = take(); batch.length > 0;) {
      busy++
      departed++
      const returning = statements.send(batch)
      wake() // another lane may take the rest
      concluded.answer()
      concluded = yield* returning
      busy-- // this lane takes again: no other one opens for items that arrive now
      settled(batch, concluded.left)
      // The database has nothing to do: what waits leaves before fibers go on, and take their time.
      const ahead = busy === 0 && queues.waiting >= worthALane ? take(batch.length) : []
      if (ahead.length === 0) {
        concluded.answer()
        concluded = Statements.nothing
        if (batch.length > 1) yield* Effect.yieldNow
      }
      batch = ahead.length === 0 ? take() : ahead
    }
    open--
  })

  return (item) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        const leaving = { item, tagLocks: tagLocksOf(item) }
        const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)

        /** Lets the item gather, and waits for its outcome. */
        const gather = (add: (entry: Entry) => void): Effect.Effect<AppendOutcome, SqlError> => {
          if (isClosed) return Effect.interrupt
          const answered = Deferred.makeUnsafe<AppendOutcome, SqlError>()
          const entry: Entry = {
            ...leaving,
            isConditional: isConditional(item),
            size: item.messages.reduce((sum, { data }) => sum + data.length, 0),
            span,
            answer: (outcome) => {
              unanswered.delete(entry)
              Deferred.doneUnsafe(answered, outcome)
            },
            isWithdrawn: false,
            statement: undefined
          }
          unanswered.add(entry)
          add(entry)
          return Effect.onInterrupt(restore(Deferred.await(answered)), () => withdraw(entry))
        }

        const isLarge = item.messages.length >= largeItem && large < maximumLarge
        if (isClosed || (open > 0 && !isLarge) || !queues.reserve(leaving, isLarge)) {
          return gather((entry) => {
            queues.add(entry)
            wake()
          })
        }
        if (isLarge) large++
        else {
          open++
          busy++
          departed++
        }
        const back = (left: ReadonlyArray<Entry>): void => {
          if (isLarge) large--
          else {
            open--
            busy--
          }
          settled([leaving], left)
        }
        return Effect.matchCauseEffect(restore(append([item])), {
          onFailure: (cause) => {
            back([])
            return Effect.failCause(cause)
          },
          onSuccess: ([outcome]) => {
            if (outcome === undefined) return gather((entry) => back([entry]))
            back([])
            return Effect.succeed(outcome)
          }
        })
      })
    )

  /** Its fiber was interrupted: a statement that no other fiber waits for is cancelled. */
  function withdraw(entry: Entry): Effect.Effect<void> {
    entry.isWithdrawn = true
    unanswered.delete(entry)
    const { statement } = entry
    if (statement !== undefined) return --statement.wanted === 0 ? Fiber.interrupt(statement.fiber) : Effect.void
    const queue = queues.remove(entry)
    return queue === undefined ? Effect.void : held.abandon(queue)
  }
})
