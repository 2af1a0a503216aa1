/** Decisions on hot courses, and a store that tells what is appended, and can be held. */
import { Effect, Latch, Layer, Schema, Scope, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Fold from "../../Fold.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import { type AppendItem, Storage } from "../../Storage.ts"

export class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  student: Message.tag("student", Schema.String)
}) {}

export class Courses extends MessageStore.Service<Courses>()("effect-message-store/testing/HotCourses", {
  name: "contract",
  schema: Subscribed
}) {}

export const students = Fold.make<Subscribed>()({
  initial: [] as ReadonlyArray<string>,
  Subscribed: (sofar, { student }) => [...sofar, student]
})

/** A store whose appends are counted, and wait at a gate; something may come before one, or replace it. Looks are counted, too. */
export const observed = Effect.gen(function*() {
  const storage = yield* Storage
  const gate = yield* Latch.make(true)
  const appends: Array<ReadonlyArray<AppendItem>> = []
  const calls = { ends: 0 }
  const before = new Map<number, Effect.Effect<unknown, SqlError>>()
  const wrapped = Storage.of({
    ...storage,
    append: (items, options) =>
      Effect.suspend(() => {
        const own = before.get(appends.push(items)) ?? Effect.void
        return gate.await.pipe(Effect.andThen(own), Effect.andThen(storage.append(items, options)))
      }),
    ends: (streams, tags) =>
      Effect.suspend(() => {
        calls.ends++
        return storage.ends(streams, tags)
      }),
    readTagged: (query) =>
      Effect.suspend(() => {
        if (query.queries[0].upTo === undefined) calls.ends++ // it asks for them, too
        return storage.readTagged(query)
      })
  })
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(
    Layer.fresh(Layer.provide(Courses.layerStorage, Layer.succeed(Storage, wrapped))),
    scope
  )
  return { store: yield* Effect.provide(Courses, context), gate, appends, calls, before, scope }
})

export type Observed = Effect.Success<typeof observed>

/** Until something is so: fibers go on meanwhile. */
export const until = (isSo: () => boolean) =>
  Effect.gen(function*() {
    while (!isSo()) yield* Effect.yieldNow
  })

/** Starts decisions while the append of the first is held, and returns when all have been made. */
export const started = Effect.fnUntraced(function*<A, E>(
  { appends, gate }: Observed,
  decisions: ReadonlyArray<(made: () => void) => Effect.Effect<A, E>>
) {
  yield* gate.close
  let made = 0
  const already = appends.length
  const fibers = yield* Effect.forEach(decisions, (decision) => {
    let isMade = false
    return Effect.forkChild(
      decision(() => {
        if (!isMade) made++
        isMade = true
      }),
      { startImmediately: true }
    )
  })
  yield* until(() => made === decisions.length && appends.length > already)
  return fibers
})

let values = 0
export const newCourse = () => `hot ${++values} ${globalThis.crypto.randomUUID()}`

export const stored = (store: Courses["Service"], course: string) =>
  Effect.map(
    Stream.runCollect(store.readTagged({ course })),
    (all) => all.map(({ message, metadata }) => `${message.student} ${metadata.correlationId ?? ""}`.trim())
  )

export const names = (length: number): ReadonlyArray<string> => Array.from({ length }, (_, i) => `s${i}`)
