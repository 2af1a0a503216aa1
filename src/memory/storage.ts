/**
 * The port in memory: the same answers as PostgreSQL's, for tests and prototypes. Nothing outlives the layer.
 */
import { Clock, Context, DateTime, Effect, identity, Layer, Option, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { checkEnding } from "../internal/names.ts"
import {
  type AppendItem,
  type AppendOutcome,
  type EditionKey,
  type MessageStorage,
  type Page,
  type Snapshot,
  Storage,
  type StreamQuery
} from "../Storage.ts"
import { type Signal, Wakeup } from "../storage/listeners.ts"
import * as MemoryArchive from "./archive.ts"
import * as MemoryWakeup from "./listeners.ts"
import { asOf, Messages, type Row, rowAt, toStored, type View, viewOf } from "./messages.ts"
import * as MemoryOperator from "./operator.ts"
import { cut } from "./pages.ts"
import * as MemorySchedule from "./scheduled.ts"
import { Snapshots } from "./snapshots.ts"
import * as MemoryStream from "./streams.ts"
import { SubjectKeys } from "./subjectKeys.ts"
import * as Transaction from "./transaction.ts"

/** The last commit that a snapshot sees. */
class SnapshotCommit extends Context.Service<SnapshotCommit, number>()("effect-message-store/memory/Snapshot") {}

const toPage = (found: ReadonlyArray<Row>, limit: number): Page => {
  const { more, rows } = cut(found, limit)
  return { messages: rows.map(toStored), more }
}

const streamPage = (rows: ReadonlyArray<Row>, query: StreamQuery): ReadonlyArray<Row> => {
  const first = rows[0]?.version ?? 1
  const range = rows.slice(Math.max(query.fromVersion - first, 0), Math.max(query.toVersion - first + 1, 0))
  return query.direction === "forward" ? range.slice(0, query.limit) : range.slice(-query.limit).toReversed()
}

/** A new, empty store each time the layer is built. */
export const layer: Layer.Layer<Storage> = Layer.effect(
  Storage,
  Effect.map(Wakeup, (wakeup) => {
    const messages = new Messages()
    const streams = new MemoryStream.Streams<Row>()
    const snapshots = new Snapshots()
    messages.onDeleted = (deleted) => streams.unlink(deleted)

    const endsOf = (view: View, tags: ReadonlyArray<string>) => ({
      tags: tags.map((tag) => messages.tag(view, tag).at(-1)?.globalPosition ?? 0),
      editions: tags.map((tag) => messages.edition(view, `tag ${tag}`))
    })

    const editionOf = (view: View) => ({ name, of }: EditionKey) => messages.edition(view, `${of} ${name}`)

    /** What a stream's page begins behind: a snapshot whose last message is where it was. */
    const standing = (view: View, rows: ReadonlyArray<Row>, { snapshot, toVersion }: StreamQuery) => {
      const saved = snapshot && snapshots.get(snapshot, editionOf(view))
      if (saved === undefined || saved.version > toVersion) return undefined
      return rowAt(rows, saved.version)?.globalPosition === saved.ends[0] ? saved : undefined
    }

    const forgetSnapshots = Effect.sync(() => snapshots.forget(editionOf(asOf(Infinity))))

    const currentView: Effect.Effect<View, SqlError> = Effect.gen(function*() {
      const snapshot = yield* Effect.serviceOption(SnapshotCommit)
      if (Option.isSome(snapshot)) return asOf(snapshot.value)
      const transaction = yield* Transaction.current
      return Option.isSome(transaction) ? viewOf(transaction.value.journal(messages)) : asOf(Infinity)
    })

    const locked: MemoryArchive.Source["locked"] = (given, use) =>
      Transaction.required((transaction) =>
        Effect.gen(function*() {
          while (true) {
            const items = yield* Effect.fromResult(messages.tagging.complete(given))
            const { names, shared } = locksOf(items)
            const { number } = messages.tagging.declared
            yield* messages.locks.acquire(transaction, names, shared)
            if (messages.tagging.declared.number !== number) continue // declared while it waited
            return yield* transaction.whileOpen(() => Effect.succeed(use(items, transaction.journal(messages))))
          }
        })
      )

    const append: MessageStorage["append"] = (given, { atomic }) =>
      Clock.currentTimeMillis.pipe(
        Effect.map(DateTime.makeUnsafe),
        Effect.flatMap((addedAt) =>
          locked(given, (items, changes) => messages.append(changes, items, atomic, addedAt))
        ),
        Effect.tap((outcomes) => wakeup.signal(channel, outcomes.flatMap(signals)))
      )

    const scheduled = MemorySchedule.make({
      append: (items) => append(items, { atomic: false }),
      isBusy: (transaction, item) =>
        Result.match(messages.tagging.complete([item]), {
          onFailure: () => false, // it is refused
          onSuccess: (items) => locksOf(items).names.some((name) => !messages.locks.isFree(transaction, name))
        })
    }, wakeup)

    return Storage.of({
      ...scheduled,
      ...MemoryArchive.make({
        messages,
        currentView,
        locked,
        wake: wakeup.signal(channel, [{ key: channel, payload: {} }])
      }),
      append,
      readStream: (query) =>
        Effect.map(currentView, (view) => {
          const rows = messages.stream(view, query.stream)
          const snapshot = standing(view, rows, query)
          const fromVersion = snapshot === undefined ? query.fromVersion : snapshot.version + 1
          const page = toPage(streamPage(rows, { ...query, fromVersion }), query.limit)
          return { ...page, snapshot, edition: messages.edition(view, `stream ${query.stream}`) }
        }),
      readPattern: (query) => Effect.map(currentView, (view) => toPage(messages.pattern(view, query), query.limit)),
      readTagged: (query) =>
        Effect.map(currentView, (view) => ({
          ...toPage(messages.anyTagged(view, query), query.limit),
          ends: query.queries[0].upTo === undefined
            ? endsOf(view, query.queries.map(({ tags: [tag] }) => tag))
            : undefined
        })),
      ends: (names, tags, keys = []) =>
        Effect.map(currentView, (view) => ({
          heads: names.map((stream) => messages.head(view, stream)),
          tags: endsOf(view, tags).tags,
          editions: [
            ...names.map((name) => editionOf(view)({ of: "stream", name })),
            ...endsOf(view, tags).editions
          ],
          snapshots: keys.map((key) => snapshots.get(key, editionOf(view)))
        })),
      saveSnapshot: (snapshot) => Effect.sync(() => snapshots.save(snapshot, editionOf(asOf(Infinity)))),
      subjectKeys: new SubjectKeys().storage,
      readByIds: (messageIds) => Effect.map(currentView, (view) => messages.ids(view, messageIds).map(toStored)),
      messageIds: ({ fromVersion, limit, stream }) =>
        Effect.map(
          currentView,
          (view) =>
            streamPage(messages.stream(view, stream), {
              stream,
              fromVersion,
              toVersion: Infinity,
              limit,
              direction: "forward"
            })
        ),
      head: (stream) => Effect.map(currentView, (view) => messages.head(view, stream)),
      delete: (deletion) =>
        Transaction.required((transaction) =>
          Effect.gen(function*() {
            const changes = transaction.journal(messages)
            yield* messages.locks.acquire(transaction, [`stream ${deletion.stream}`])
            const ids = messages.deletedBy(viewOf(changes), deletion).map(({ messageId }) => `id ${messageId}`)
            yield* messages.locks.acquire(transaction, ids.toSorted())
            const outcome = yield* transaction.whileOpen(() => Effect.succeed(messages.delete(changes, deletion)))
            if (ids.length > 0) yield* transaction.defer(forgetSnapshots)
            return outcome
          })
        ),
      lockStreams: (names) =>
        Transaction.required((transaction) =>
          messages.locks.acquire(transaction, names.map((name) => `stream ${name}`).toSorted())
        ),
      redact: (redactions) =>
        Transaction.required((transaction) =>
          Effect.andThen(
            transaction.whileOpen(() => Effect.sync(() => messages.redact(transaction.journal(messages), redactions))),
            transaction.defer(forgetSnapshots)
          )
        ),
      truncate: Effect.andThen(
        messages.locks.idle,
        Effect.sync(() => {
          messages.truncate()
          snapshots.clear()
          scheduled.clear()
        })
      ),
      serverRun: () => 0,
      declareTags: (places) =>
        Effect.sync(() => {
          messages.tagging.declare(places)
          return messages.tagging.declared
        }),
      declaredTags: Effect.sync(() => messages.tagging.declared),
      settleTags: (places) => Effect.sync(() => messages.tagging.settle(places, messages.stored)),
      tagStored: (page) => Effect.sync(() => messages.tagStored(page)),
      withTransaction: Transaction.withTransaction,
      handlerTransactions: undefined,
      inTransaction: Transaction.isCurrent,
      afterCommit: Transaction.afterCommit,
      snapshot: Effect.flatMap(Transaction.current, (transaction) =>
        Option.isSome(transaction)
          ? Effect.succeed<Snapshot>(identity)
          : Effect.map(
            Effect.acquireRelease(
              Effect.sync(() => messages.openSnapshot()),
              () => Effect.sync(() => messages.closeSnapshot())
            ),
            (commit) => Effect.provideService(SnapshotCommit, commit) as Snapshot
          )),
      listen: wakeup.listen(channel),
      operator: MemoryOperator.make(messages, streams, scheduled.list, wakeup),
      aggregatedStream: (definition) =>
        Effect.map(
          Effect.fromResult(checkEnding("aggregated stream", definition.name)),
          () => MemoryStream.make(streams, messages, definition, wakeup)
        )
    })
  })
).pipe(Layer.provide(Layer.fresh(MemoryWakeup.layer)))

/** What an append locks, in one order, and which of it is only asked about. */
const locksOf = (items: ReadonlyArray<AppendItem>) => {
  const alone = new Set(items.flatMap(({ messages, stream }) =>
    messages.length === 0
      ? []
      : [`stream ${stream}`, ...messages.flatMap(({ tagged }) => tagged?.tags.map((tag) => `tag ${tag}`) ?? [])]
  ))
  const asked = items.flatMap(({ conditions = [], stream }) => [
    `stream ${stream}`,
    ...conditions.map(({ tags: [tag] }) => `tag ${tag}`)
  ])
  const shared = new Set(asked.filter((key) => !alone.has(key)))
  const ids = items.flatMap((item) => item.messages.map((message) => `id ${message.messageId}`))
  return { names: [...[...alone, ...shared].toSorted(), ...ids.toSorted()], shared }
}

const channel = "messages"

/** Listeners in memory do not read payloads. */
const signals = (outcome: AppendOutcome): ReadonlyArray<Signal> =>
  outcome._tag === "Written" ? [{ key: channel, payload: {} }] : []
