/**
 * The port on PostgreSQL, through `SqlClient` alone.
 */
import { Array as Arr, Context, Effect, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError, UnsupportedEngineError } from "../errors.ts"
import { permitted } from "../internal/refusal.ts"
import { type AppendItem, type AppendOutcome, Storage } from "../Storage.ts"
import { Listeners, type Signal, Wakeup } from "../storage/listeners.ts"
import { append } from "./append.ts"
import * as Archive from "./archive.ts"
import * as Claims from "./claims.ts"
import * as Gathered from "./client/gathered.ts"
import { snapshot } from "./client/snapshot.ts"
import * as SpareConnections from "./client/spareConnections.ts"
import { withTransaction } from "./client/transaction.ts"
import * as Waiting from "./client/waiting.ts"
import * as PostgresWakeup from "./client/wakeup.ts"
import { decide } from "./decide.ts"
import * as Forgetting from "./forgetting.ts"
import * as GatheredEnds from "./gatheredEnds.ts"
import * as GroupCommit from "./groupCommit.ts"
import type { Locks } from "./groupCommit/held.ts"
import { lean } from "./lean.ts"
import { busyLocks, isConditional, withLock } from "./locks.ts"
import * as Queries from "./messages.ts"
import { checkStoreName } from "./names.ts"
import { openStore } from "./open.ts"
import * as Opening from "./opening.ts"
import * as Operator from "./operator.ts"
import * as Scheduled from "./scheduled.ts"
import { makeSave } from "./snapshots.ts"
import * as SubjectKeys from "./subjectKeys.ts"
import * as Tagged from "./tagged.ts"

/** Serves a store whose database objects exist. */
export const layer = (
  name: string,
  options?: {
    readonly coalesce?: boolean | undefined
    /** Whether single items have functions of their own (default). */
    readonly lean?: boolean | undefined
    /** Whether aggregated streams make their database objects themselves (default). */
    readonly migrate?: boolean | undefined
    /** Whether it hears of what others write (default): a standby lets nobody listen. */
    readonly listens?: boolean | undefined
  }
): Layer.Layer<Storage, InvalidNameError | SetupError | UnsupportedEngineError | SqlError, SqlClient.SqlClient> =>
  Layer.effect(
    Storage,
    Effect.gen(function*() {
      if (options?.migrate === false) yield* checkStoreName(name)
      const store = yield* permitted(name)(openStore(name))
      const sql = (yield* SqlClient.SqlClient).withoutTransforms()
      const wakeup = options?.listens === false ? silent : yield* Wakeup
      const claims = yield* Claims.ClaimHolder
      const { bound } = yield* SpareConnections.SpareConnections
      /** Appends by the function that is made for what the items are. */
      const writer = (client: SqlClient.SqlClient): ReturnType<typeof append> => {
        const [plain, conditional, ofOneStream] = [append(client, store), decide(client, store), lean(client, store)]
        const general: typeof plain = (items, how) => (items.some(isConditional) ? conditional : plain)(items, how)
        if (options?.lean === false) return general
        return (items, how) => ofOneStream(items, how.wait, () => general(items, how))
      }
      const write = writer(sql)
      /** Writes, and tells listeners once that is committed. */
      const call: typeof write = (items, how) =>
        Effect.tap(write(items, how), (outcomes) => wakeup.signal(store.channel, signals(items, outcomes)))
      const waiting = yield* Waiting.make(sql)
      const writeWaiting = waiting && writer(waiting)
      const locks: Locks = {
        busy: busyLocks(sql, store),
        append: waiting && writeWaiting && ((lock, appending) =>
          Effect.suspend(() => {
            let written: ReadonlyArray<AppendItem> = []
            const appended = withLock(waiting, store)(lock)(appending((items) => {
              written = items
              return writeWaiting(items, grouped)
            }))
            return Effect.tap(appended, (outcomes) => wakeup.signal(store.channel, signals(written, outcomes)))
          }))
      }
      const inTransaction = Effect.map(Effect.serviceOption(sql.transactionService), Option.isSome)
      /** In a transaction of its own, if none is open: those of handlers leave connections free for it. */
      const inTurn = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
        bound === undefined ? effect : Effect.flatMap(inTransaction, (isIn) => isIn ? effect : bound.inTurn(effect))
      const forgetting = Forgetting.make(sql, store)
      const coalesced = options?.coalesce === false
        ? undefined
        : yield* GroupCommit.make((items) => call(items, grouped), locks, name)
      const open = Opening.make(
        sql,
        store,
        claims,
        wakeup,
        options?.coalesce === false ? Gathered.alone : yield* Gathered.make(sql)
      )
      const queries = Queries.make(sql, store)
      return Storage.of({
        ...queries,
        ends: options?.coalesce === false ? queries.ends : yield* GatheredEnds.make(sql, queries.ends, name),
        ...Scheduled.make(sql, store, call, wakeup),
        saveSnapshot: makeSave(sql, store),
        subjectKeys: SubjectKeys.make(sql, store),
        ...Tagged.make(sql, store),
        ...forgetting,
        delete: (deletion) => inTurn(forgetting.delete(deletion)),
        ...Archive.make(sql, store, wakeup),
        append: (items, { atomic }) =>
          Effect.withFiber((fiber) => {
            const isIn = Context.getOrUndefined(fiber.context, sql.transactionService) !== undefined
            if (!isIn && coalesced !== undefined && items.length === 1) {
              return Effect.map(coalesced(items[0]), Arr.of)
            }
            // It waits: every item has an outcome.
            const appended = call(items, { atomic, wait: true }) as Effect.Effect<
              ReadonlyArray<AppendOutcome>,
              SqlError
            >
            return isIn || bound === undefined ? appended : bound.inTurn(appended)
          }),
        withTransaction: withTransaction(sql),
        handlerTransactions: bound,
        inTransaction,
        afterCommit: sql.afterCommit,
        snapshot: snapshot(sql),
        serverRun: () => store.answered.run,
        listen: wakeup.listen(store.channel),
        operator: Operator.make(sql, store, (definition) => open(definition, { migrates: false, isOperator: true })),
        aggregatedStream: (definition) => open(definition, { migrates: options?.migrate !== false })
      })
    })
  ).pipe(Layer.provide([PostgresWakeup.layer, Claims.layer, SpareConnections.layer]))

/** Wakes nobody: listeners look when they have waited for long enough. */
const silent = Wakeup.of({ signal: () => Effect.void, listen: (channel) => new Listeners().listen(channel) })

/** How the items of a group commit are appended: those whose locks are free, each for itself. */
const grouped = { atomic: false, wait: false }

/** The new heads of the streams, in the form that depeche_db's listeners expect. */
const signals = (
  items: ReadonlyArray<AppendItem>,
  outcomes: ReadonlyArray<AppendOutcome | undefined>
): ReadonlyArray<Signal> =>
  items.flatMap(({ messages, stream }, i) => {
    const outcome = outcomes[i]
    if (outcome?._tag !== "Written") return []
    const { globalPosition, version } = outcome
    const message_id = messages[messages.length - 1]?.messageId
    return [{
      key: stream,
      payload: { message_id, stream, version, global_position: globalPosition }
    }]
  })
