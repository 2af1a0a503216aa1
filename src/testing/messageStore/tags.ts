/** Messages found, and decided on, by their tags. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Latch, Layer, Result, Schema, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { failsWith, newStream, outsider, type Part } from "../fixture.ts"

export class Opened extends Schema.TaggedClass<Opened>()("Opened", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  capacity: Schema.Natural
}) {}
export class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  student: Message.tag("student", Schema.String)
}) {}
export class Labelled extends Schema.TaggedClass<Labelled>()("Labelled", {
  ...Message.fields,
  labels: Message.tag("label", Schema.Array(Schema.Union([Schema.String, Schema.Int]))),
  course: Schema.optionalKey(Message.tag("course", Schema.NullOr(Schema.String)))
}) {}
export class Closed extends Schema.TaggedClass<Closed>()("Closed", { ...Message.fields }) {}

const CourseEvent = Schema.Union([Opened, Subscribed, Labelled, Closed])
export type CourseEvent = typeof CourseEvent.Type

class Courses extends MessageStore.Service<Courses>()("effect-message-store/testing/Courses", {
  name: "contract",
  schema: CourseEvent
}) {}

/** The store of courses on the storage of the contract; each time another one, as another process has. */
export const courses = Effect.gen(function*() {
  const storage = yield* Storage
  const layer = Layer.fresh(Layer.provide(Courses.layerStorage, Layer.succeed(Storage, storage)))
  return yield* Effect.provide(Courses, yield* Layer.build(layer))
})

let values = 0

/** A value that no other test uses, with characters that mean something elsewhere. */
export const newValue = () => `${++values}:"{\\}",é🙂 ${globalThis.crypto.randomUUID()}`

const course = Fold.make<CourseEvent>()({
  initial: { capacity: 0, taken: 0 },
  Opened: (state, { capacity }) => ({ ...state, capacity }),
  Subscribed: (state) => ({ ...state, taken: state.taken + 1 })
})
export const count = Fold.make<CourseEvent>()({ initial: 0, Subscribed: (sofar) => sofar + 1 })

class Full extends Error {
  readonly _tag = "Full"
}

const maximumCourses = 3

/** The rules of dcb.events: a course has a capacity, a student a limit, and nobody subscribes twice. */
const subscribe = (store: Courses["Service"], courseId: string, student: string) =>
  store.decide(
    {
      course: Decision.tagged({ course: courseId }, course),
      student: Decision.tagged({ student }, count),
      both: Decision.tagged({ student, course: courseId }, count)
    },
    (states) =>
      states.course.taken < states.course.capacity && states.student < maximumCourses && states.both === 0
        ? { stream: newStream(), messages: new Subscribed({ course: courseId, student }) }
        : Effect.fail(new Full())
  )

const read = <A>(messages: Stream.Stream<Message.StoredMessage<A>, MessageStore.DecideError>) =>
  Effect.map(Stream.runCollect(messages), (all) => all.map(({ message }) => message))

export const tags: Part = (it, { concurrentTransactions }) => {
  it.effect("decides on no more than 500 streams and sets of tags", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const decided = (streams: number, sets: number) =>
        store.decide(
          Object.fromEntries([
            ...Arr.makeBy(streams, (i) => [`s${i}`, Decision.stream(`many-${i}`, count)] as const),
            ...Arr.makeBy(sets, (i) => [`t${i}`, Decision.tagged({ course: `many-${i}` }, count)] as const)
          ]),
          () => []
        )
      assert.deepStrictEqual(yield* decided(2, 498), [])
      yield* failsWith(decided(2, 499), { _tag: "InvalidArgumentError", argument: "sources" })
    }))

  it.effect("finds messages by their tags, in global order, whatever streams they are in", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [a, b, ada, grace] = [newValue(), newValue(), newValue(), newValue()]
      const opened = new Opened({ course: a, capacity: 1 })
      const first = new Subscribed({ course: a, student: ada })
      const second = new Subscribed({ course: b, student: ada })
      const third = new Subscribed({ course: a, student: grace })
      const labelled = new Labelled({ labels: [`${a} x`, 7, 7], course: a })
      const without = new Labelled({ labels: [], course: null })
      yield* store.write(newStream(), [opened, first])
      yield* store.writeAll([
        { stream: newStream(), messages: second },
        { stream: newStream(), messages: [without, third] }
      ])
      yield* store.synchronize(newStream(), [labelled, new Closed({})])
      const found = Effect.fnUntraced(function*(reader: Pick<Courses["Service"], "readTagged">) {
        assert.deepStrictEqual(yield* read(reader.readTagged({ course: a })), [opened, first, third, labelled])
        assert.deepStrictEqual(yield* read(reader.readTagged({ student: ada })), [first, second])
        assert.deepStrictEqual(yield* read(reader.readTagged({ student: ada, course: a })), [first])
        assert.deepStrictEqual(yield* read(reader.readTagged([{ student: ada }, { course: a }])), [
          opened,
          first,
          second,
          third,
          labelled
        ])
        assert.deepStrictEqual(yield* read(reader.readTagged({ course: a }, { types: ["Opened", "Labelled"] })), [
          opened,
          labelled
        ])
        assert.deepStrictEqual(
          yield* read(reader.readTagged({ course: a }, { direction: "backward", limit: 2 })),
          [labelled, third]
        )
        assert.deepStrictEqual(yield* read(reader.readTagged({ label: `${a} x` })), [labelled])
        assert.deepStrictEqual(yield* read(reader.readTagged({ course: newValue() })), [])
      })
      yield* found(store)
      yield* Effect.scoped(Effect.flatMap(store.reader, found))
      const sevens = yield* read(store.readTagged({ label: 7 }))
      assert.isTrue(sevens.some(({ messageId }) => messageId === labelled.messageId))
    }).pipe(Effect.scoped))

  it.effect("reads more than a page", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [a, b] = [newValue(), newValue()]
      const given = Arr.makeBy(2300, (i) => new Subscribed({ course: i % 2 === 0 ? a : b, student: `${i % 7}` }))
      for (const chunk of Arr.chunksOf(given, 500)) yield* store.write(newStream(), chunk)
      assert.lengthOf(yield* read(store.readTagged({ course: a })), 1150)
      const both = yield* read(store.readTagged([{ course: a }, { course: b }]))
      assert.deepStrictEqual(both.map(({ messageId }) => messageId), given.map(({ messageId }) => messageId))
      const [last] = yield* read(store.readTagged([{ course: a }, { course: b }], { direction: "backward", limit: 1 }))
      assert.strictEqual(last?.messageId, given.at(-1)?.messageId)
    }).pipe(Effect.scoped))

  it.effect("decides again when a message of the tags was added, and not for others", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const outside = yield* outsider
      const [a, student] = [newValue(), newValue()]
      yield* store.write(newStream(), new Opened({ course: a, capacity: 2 }))
      const decisions = (added: CourseEvent) =>
        Effect.gen(function*() {
          const seen: Array<number> = []
          yield* store.decide(
            { course: Decision.tagged({ course: a }, course), pair: Decision.tagged({ student, course: a }, count) },
            (states) =>
              Effect.gen(function*() {
                seen.push(states.course.taken)
                if (seen.length === 1) yield* Effect.orDie(outside(store.write(newStream(), added)))
                return { stream: newStream(), messages: new Subscribed({ course: a, student: newValue() }) }
              })
          )
          return seen
        })
      assert.deepStrictEqual(yield* decisions(new Subscribed({ course: a, student })), [0, 1])
      // The folds have no case for such messages.
      assert.deepStrictEqual(yield* decisions(new Labelled({ labels: ["x"], course: a })), [2])
      assert.deepStrictEqual(yield* decisions(new Subscribed({ course: newValue(), student })), [3])
      assert.deepStrictEqual(yield* decisions(new Opened({ course: a, capacity: 9 })), [4, 4])
    }).pipe(Effect.scoped))

  it.effect("holds the rules of courses and students in 60 fibers on two stores", () =>
    Effect.gen(function*() {
      const stores = [yield* courses, yield* courses] as const
      const ids = Arr.makeBy(4, newValue)
      const students = Arr.makeBy(5, newValue)
      for (const [i, id] of ids.entries()) {
        yield* stores[0].write(newStream(), new Opened({ course: id, capacity: 2 + i }))
      }
      const results = yield* Effect.forEach(
        Arr.makeBy(60, (i) => i),
        (i) => Effect.result(subscribe(stores[i % 2 === 0 ? 0 : 1], ids[i % 4] ?? "", students[(i * 3 + 1) % 5] ?? "")),
        { concurrency: "unbounded" }
      )
      const failures = results.filter(Result.isFailure).map(({ failure }) => failure._tag)
      assert.deepStrictEqual(Arr.dedupe(failures), ["Full"])
      let subscriptions = 0
      for (const [i, id] of ids.entries()) {
        const taken = yield* read(stores[0].readTagged({ course: id }, { types: ["Subscribed"] }))
        assert.isAtMost(taken.length, 2 + i)
        assert.lengthOf(new Set(taken.map(({ student }) => student)), taken.length)
        subscriptions += taken.length
      }
      for (const student of students) {
        assert.isAtMost((yield* read(stores[0].readTagged({ student }))).length, maximumCourses)
      }
      assert.strictEqual(subscriptions, results.filter(Result.isSuccess).length)
      // Whoever is refused is refused rightly: nothing more fits.
      for (const id of ids) {
        for (const student of students) yield* failsWith(subscribe(stores[1], id, student), { _tag: "Full" })
      }
    }).pipe(Effect.scoped))

  it.effect("decides on streams and tags together, in the transaction that is open", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [a, student, stream] = [newValue(), newValue(), newStream()]
      const decided = store.decide(
        {
          closed: Decision.stream(stream, { initial: 0, evolve: (sofar: number) => sofar + 1 }),
          taken: Decision.tagged({ course: a }, count)
        },
        ({ closed, taken }) =>
          closed > 0 || taken > 2
            ? Effect.fail(new Full())
            : { stream: newStream(), messages: new Subscribed({ course: a, student }) }
      )
      yield* failsWith(
        store.withTransaction(Effect.andThen(Effect.andThen(decided, decided), Effect.fail({ _tag: "No" }))),
        { _tag: "No" }
      )
      assert.deepStrictEqual(yield* read(store.readTagged({ course: a })), [])
      yield* store.withTransaction(Effect.all([decided, decided, decided]))
      yield* failsWith(decided, { _tag: "Full" })
      assert.lengthOf(yield* read(store.readTagged({ course: a })), 3)
    }).pipe(Effect.scoped))

  it.effect("says in a transaction which message was added to which tags", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const a = newValue()
      const added: Array<Subscribed> = []
      const failure = yield* Effect.flip(store.withTransaction(store.decide(
        { course: Decision.tagged({ course: a }, course), other: Decision.tagged({ course: newValue() }, course) },
        () =>
          Effect.as(
            Effect.orDie(Effect.suspend(() => {
              const message = new Subscribed({ course: a, student: newValue() })
              added.push(message)
              return store.write(newStream(), message)
            })),
            { stream: newStream(), messages: new Closed({}) }
          )
      )))
      assert(failure._tag === "DecisionConflictError")
      assert.deepStrictEqual([failure.source, failure.messageId], ["course", added[1]?.messageId])
      assert.strictEqual(failure.version, 1)
    }).pipe(Effect.scoped))

  it.effect("refuses tags that cannot be found, and asks that mean nothing", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const a = newValue()
      const long = `${a}${"x".repeat(248 - Array.from(a).length)}`
      yield* store.write(newStream(), new Opened({ course: long, capacity: 1 }))
      assert.lengthOf(yield* read(store.readTagged({ course: long })), 1)
      yield* failsWith(store.write(newStream(), new Opened({ course: `${long}x`, capacity: 1 })), {
        _tag: "SerializationError",
        reason: "its tag \"course\" has more than 255 characters, its name included"
      })
      const labels = (length: number) => new Labelled({ labels: Arr.makeBy(length, (i) => `${a} ${i}`) })
      yield* store.write(newStream(), labels(32))
      assert.lengthOf(yield* read(store.readTagged({ label: `${a} 31`, course: a })), 0)
      assert.lengthOf(yield* read(store.readTagged({ label: `${a} 31` })), 1)
      yield* failsWith(store.write(newStream(), labels(33)), { _tag: "SerializationError" })
      const invalid: ReadonlyArray<Stream.Stream<unknown, { readonly _tag: string }>> = [
        store.readTagged({}),
        store.readTagged([] as never),
        store.readTagged({ curse: a }),
        store.readTagged({ course: `${long}x` }),
        store.readTagged({ course: 1.5 }),
        store.readTagged({ course: "\0" }),
        store.readTagged({ course: "\ud800" }),
        store.readTagged({ student: a, label: a }),
        store.readTagged({ course: a }, { types: ["Nothing"] }),
        store.readTagged({ course: a }, { types: ["Closed"] }),
        store.readTagged({ course: a }, { types: [] as never }),
        store.readTagged({ course: a }, { limit: -1 })
      ]
      for (const stream of invalid) yield* failsWith(Stream.runDrain(stream), { _tag: "InvalidArgumentError" })
      const closed = Fold.make<CourseEvent>()({ initial: 0, Closed: (sofar) => sofar + 1 })
      yield* failsWith(store.decide({ a: Decision.tagged({ course: a }, closed) }, () => []), {
        _tag: "InvalidArgumentError",
        argument: "types",
        reason: "must have the tags that are asked for (course): Closed has none"
      })
    }).pipe(Effect.scoped))

  it.effect("asks about 300 tags at once, and writes as many", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const prefix = newValue()
      const all = Arr.makeBy(300, (i) => new Subscribed({ course: `${prefix} ${i}`, student: prefix }))
      yield* store.write(newStream(), all)
      const every = Arr.map(all, ({ course: id }) => ({ course: id }))
      const [position] = yield* store.decide({ all: Decision.tagged(every, count) }, (states) => {
        assert.strictEqual(states.all, 300)
        return { stream: newStream(), messages: new Closed({}) }
      })
      assert.strictEqual(position?.version, 1)
      const tooMany = Arr.makeBy(500, (i) => new Subscribed({ course: `${prefix} ${i}`, student: prefix }))
      yield* failsWith(store.write(newStream(), tooMany), { _tag: "InvalidArgumentError" })
    }).pipe(Effect.scoped))

  it.effect("gives a name to one of 20 who want it", () =>
    Effect.gen(function*() {
      const stores = [yield* courses, yield* courses] as const
      const name = newValue()
      const claim = (i: number) =>
        stores[i % 2 === 0 ? 0 : 1].decide({ taken: Decision.tagged({ student: name }, count) }, ({ taken }) =>
          taken > 0
            ? Effect.fail(new Full())
            : { stream: newStream(), messages: new Subscribed({ course: `${i}`, student: name }) })
      const results = yield* Effect.forEach(Arr.makeBy(20, (i) => i), (i) => Effect.result(claim(i)), {
        concurrency: "unbounded"
      })
      assert.lengthOf(results.filter(Result.isSuccess), 1)
      assert.lengthOf(yield* read(stores[0].readTagged({ student: name })), 1)
    }).pipe(Effect.scoped))

  it.effect("makes decisions that ask about the same tag in turn, and no others", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [a, b] = [newValue(), newValue()]
      yield* store.write(newStream(), [new Opened({ course: a, capacity: 9 }), new Opened({ course: b, capacity: 9 })])
      const start = yield* Latch.make()
      const deciding = (id: string, wait: boolean) =>
        store.decide({ course: Decision.tagged({ course: id }, course) }, () =>
          Effect.as(wait ? start.await : Effect.void, {
            stream: newStream(),
            messages: new Subscribed({ course: id, student: newValue() })
          }))
      const first = yield* Effect.forkChild(deciding(a, true), { startImmediately: true })
      const second = yield* Effect.forkChild(deciding(a, false), { startImmediately: true })
      yield* deciding(b, false)
      assert.isUndefined(second.pollUnsafe())
      yield* start.open
      yield* Fiber.joinAll([first, second])
    }).pipe(Effect.scoped))

  if (!concurrentTransactions) return

  it.effect("decides on a late commit at a lower position, and on none that was rolled back", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const outside = yield* outsider
      const [a, b] = [newValue(), newValue()]
      const sources = { a: Decision.tagged({ course: a }, count), b: Decision.tagged({ course: b }, count) }
      const seen: Array<{ readonly a: number; readonly b: number }> = []
      const late = (commit: boolean) =>
        Effect.gen(function*() {
          const decided = yield* Deferred.make<void, MessageStore.DecideError>()
          const deciding = store.decide(sources, (states) => {
            seen.push(states)
            return { stream: newStream(), messages: new Closed({}) }
          })
          yield* Effect.exit(store.withTransaction(Effect.gen(function*() {
            yield* store.write(newStream(), new Subscribed({ course: a, student: newValue() }))
            // Another one is written behind it, and committed before; the decision sees that one alone.
            yield* outside(store.write(newStream(), new Subscribed({ course: b, student: newValue() })))
            yield* outside(Effect.forkDetach(Deferred.into(Effect.asVoid(deciding), decided)))
            while (seen.length === 0) yield* outside(Stream.runDrain(store.readTagged({ course: b })))
            if (!commit) return yield* Effect.fail("no")
          })))
          yield* Deferred.await(decided)
        })
      yield* late(true)
      assert.deepStrictEqual(seen, [{ a: 0, b: 1 }, { a: 1, b: 1 }])
      seen.length = 0
      yield* late(false)
      assert.deepStrictEqual(seen, [{ a: 1, b: 2 }])
    }).pipe(Effect.scoped))
}
