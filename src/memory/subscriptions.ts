/** The state of a subscription, in memory: checkpoints and parked messages roll back with the transaction. */
import { Clock, DateTime, Duration, Effect, Option } from "effect"
import { StreamRebuiltError } from "../errors.ts"
import type {
  Advance,
  AggregatedStorage,
  Claim,
  EncodedStoredMessage,
  PartitionHead,
  PartitionQuery,
  PartitionStatus,
  SubscriptionStorage
} from "../Storage.ts"
import * as Parked from "./parked.ts"
import { type Change, checkpointOf, type Halted, type Subscribed } from "./subscribed.ts"
import * as Transaction from "./transaction.ts"

/** What a subscription asks of its aggregated stream. */
export interface Source extends Pick<AggregatedStorage, "partitions" | "readPartition"> {
  readonly place: (globalPosition: number) => PartitionHead | undefined
  /** The message, if the store has it still. */
  readonly read: (messageId: string) => EncodedStoredMessage | undefined
  readonly numbering: () => number
  /** Wakes the listeners of the stream, after the commit. */
  readonly wake: Effect.Effect<void>
}

/** As `status` tells it. */
const haltOf = (halted: Halted | undefined): Pick<PartitionStatus, "halted" | "unknownType"> => {
  if (halted === undefined) return { halted: undefined, unknownType: undefined }
  const { key: _, unknownType: type, ...halt } = halted
  const { messageId, position, since } = halt
  return type === undefined
    ? { halted: halt, unknownType: undefined }
    : { halted: undefined, unknownType: { type, position, messageId, since } }
}

export const make = (
  name: string,
  subscribed: Subscribed,
  { numbering, partitions, place, read, readPartition, wake }: Source,
  drop: () => void
): SubscriptionStorage => {
  /** In milliseconds. */
  const ageOf = ({ partition }: PartitionHead, checkpoint: number) =>
    Effect.gen(function*() {
      const { messages: [first] } = yield* readPartition({ partition, fromPosition: checkpoint + 1, limit: 1 })
      return first && Math.max(0, (yield* Clock.currentTimeMillis) - first.addedAt.epochMilliseconds)
    })

  const view = Effect.map(Transaction.current, (transaction) => subscribed.view(transaction))

  const readUnlessPaused = (state: Effect.Success<typeof view>, query: PartitionQuery) =>
    state.pauseOf(query.partition) === undefined
      ? readPartition(query)
      : Effect.succeed({ messages: [], more: false })

  const change: Parked.ChangeState = (locks, decide) =>
    Transaction.required((transaction) =>
      Effect.gen(function*() {
        yield* subscribed.locks.acquire(transaction, locks)
        const decided = yield* decide(subscribed.view(Option.some(transaction)))
        if (decided === undefined) return false
        return yield* transaction.whileOpen(() =>
          Effect.succeed(transaction.journal<Change>(subscribed).push(decided) > 0)
        )
      })
    )

  return {
    ...Parked.make(view, change, read, wake),

    initialise: (positions) =>
      Transaction.withTransaction(Effect.gen(function*() {
        yield* Transaction.required((transaction) => subscribed.locks.acquire(transaction, ["init"]))
        if ((yield* view).numbering !== undefined) return
        const starts = (yield* positions).filter(({ position }) => position >= 0)
        yield* change(["init"], () => Effect.succeed({ _tag: "Begin", starts, numbering: numbering() }))
      })),
    claims: (_mode, label) =>
      Effect.succeed({
        claim: (partition, { ask = false } = {}) =>
          Effect.map(
            Effect.acquireRelease(
              Effect.map(Clock.currentTimeMillis, (now) => {
                const owner = label === undefined ? "this process" : `this process ${label}`
                return subscribed.claim(partition, owner, ask, DateTime.makeUnsafe(now))
              }),
              (holder) =>
                Effect.sync(() => {
                  if (subscribed.holders.get(partition) === holder) subscribed.holders.delete(partition)
                })
            ),
            (holder): Claim | undefined =>
              holder && {
                partition,
                token: holder.token,
                lost: Effect.never,
                confirm: Effect.sync(() =>
                  subscribed.holders.get(partition) !== holder || subscribed.tokens.get(partition) !== holder.token
                    ? "Fenced"
                    : subscribed.state.pauseOf(partition) === undefined
                    ? "Confirmed"
                    : "Paused"
                )
              }
          ),
        othersCannotAsk: false
      }),
    read: (query) => Effect.flatMap(view, (state) => readUnlessPaused(state, query)),
    begin: ({ limit, partition }) =>
      Effect.flatMap(view, (state) => {
        const checkpoint = state.checkpoints.get(partition) ?? -1
        return Effect.map(
          readUnlessPaused(state, { partition, fromPosition: checkpoint + 1, limit }),
          (page) => ({ ...page, checkpoint })
        )
      }),
    pending: Effect.gen(function*() {
      const state = yield* view
      const { checkpoints, halted, numbering: began } = state
      if (began !== undefined && began !== numbering()) return yield* new StreamRebuiltError({ subscription: name })
      return (yield* partitions).flatMap((head) => {
        const checkpoint = checkpoints.get(head.partition) ?? -1
        const halt = halted.get(head.partition)
        const stands = halt !== undefined && halt.position > checkpoint
        const isHalted = stands && halt.unknownType === undefined
        const unknownType = stands ? halt.unknownType : undefined
        const isPaused = state.pauseOf(head.partition) !== undefined
        const hasRequeued = Array.from(state.parked.values()).some(({ partition, requeuedAt }) =>
          partition === head.partition && requeuedAt !== undefined
        )
        return head.position > checkpoint || isPaused || hasRequeued
          ? [{ ...head, checkpoint, isHalted, unknownType, isPaused, hasRequeued }]
          : []
      })
    }),
    checkpoint: (partition) => Effect.map(view, ({ checkpoints }) => checkpoints.get(partition) ?? -1),
    endOfGone: ({ partition, position }) =>
      Effect.gen(function*() {
        const { messages } = yield* readPartition({ partition, fromPosition: position + 1, limit: 1 })
        const head = (yield* partitions).find((each) => each.partition === partition)
        return messages.length === 0 && head !== undefined && head.position > position ? head.position : undefined
      }),
    advance: ({ partition, token }, from, to) =>
      Effect.map(
        change([checkpointOf(partition)], ({ checkpoints }) =>
          Effect.map(Clock.currentTimeMillis, (now) =>
            subscribed.tokens.get(partition) === token && (checkpoints.get(partition) ?? -1) === from && to > from
              ? { _tag: "Advance", partition, position: to, at: DateTime.makeUnsafe(now) }
              : undefined)),
        (advanced): Advance =>
          !advanced
            ? "Fenced"
            : subscribed.holders.get(partition)?.isWanted === true
            ? "Wanted"
            : "Advanced"
      ),
    halt: ({ partition, token }, { attempts, error, key, messageId, position }, unknownType) =>
      change(
        [checkpointOf(partition)],
        ({ halted }) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            if (subscribed.tokens.get(partition) !== token) return undefined
            const before = halted.get(partition)
            const isSame = unknownType !== undefined && before?.unknownType === unknownType &&
              before.messageId === messageId
            const since = isSame ? before.since : DateTime.makeUnsafe(now)
            return { _tag: "Halt", partition, halt: { position, messageId, error, attempts, since, unknownType, key } }
          })
      ),
    pause: (partition, why) =>
      Effect.andThen(
        change([`paused ${partition}`], ({ paused }) =>
          Effect.map(Clock.currentTimeMillis, (now) => ({
            _tag: "Pause",
            partition,
            pause: { since: paused.get(partition)?.since ?? DateTime.makeUnsafe(now), ...why }
          }))),
        wake
      ),
    resume: (partition) =>
      Effect.tap(
        change([`paused ${partition}`], ({ paused }) =>
          Effect.succeed(paused.has(partition) ? { _tag: "Resume", partition } : undefined)),
        wake
      ),
    age: Effect.gen(function*() {
      const { checkpoints } = yield* view
      const ages = yield* Effect.forEach(
        yield* partitions,
        (head) => ageOf(head, checkpoints.get(head.partition) ?? -1)
      )
      const known = ages.filter((each) => each !== undefined)
      return known.length === 0 ? undefined : Math.max(...known)
    }),
    status: Effect.gen(function*() {
      const state = yield* view
      const { acknowledged, checkpoints, halted, parked } = state
      return yield* Effect.forEach(
        yield* partitions,
        Effect.fnUntraced(function*(head) {
          const checkpoint = checkpoints.get(head.partition) ?? -1
          const halt = halted.get(head.partition)
          const age = yield* ageOf(head, checkpoint)
          const entries = Array.from(parked.values()).filter(({ partition }) => partition === head.partition)
          return {
            ...head,
            checkpoint,
            acknowledgedAt: acknowledged.get(head.partition),
            age: age === undefined ? undefined : Duration.millis(age),
            claimedBy: subscribed.holders.get(head.partition)?.owner,
            claimedAt: subscribed.holders.get(head.partition)?.since,
            parked: entries.length,
            requeued: entries.filter(({ requeuedAt }) => requeuedAt !== undefined).length,
            ...haltOf(halt !== undefined && halt.position > checkpoint ? halt : undefined),
            paused: state.pauseOf(head.partition)
          }
        })
      )
    }),
    place: (globalPosition) =>
      Effect.gen(function*() {
        const { numbering: began } = yield* view
        if (began !== undefined && began !== numbering()) return yield* new StreamRebuiltError({ subscription: name })
        return place(globalPosition)
      }),
    // Acknowledgements that are under way come before it.
    reset: Effect.gen(function*() {
      const heads = yield* partitions
      const { checkpoints } = yield* view
      const known = new Set([
        ...heads.map(({ partition }) => partition),
        ...checkpoints.keys(),
        ...subscribed.tokens.keys()
      ])
      yield* change(
        ["init", ...Array.from(known).toSorted((a, b) => a - b).map(checkpointOf)],
        () => Effect.succeed({ _tag: "Reset" })
      )
      yield* wake
    }),
    drop: Effect.sync(drop)
  }
}
