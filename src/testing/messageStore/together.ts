/** Decisions that wait for each other leave together, and have the outcomes they would have had in turn. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import { newStream, outsider, type Part } from "../fixture.ts"
import { type Courses, names, newCourse, observed, started, stored, students, Subscribed, until } from "./hotFixture.ts"

const count = Fold.make<Subscribed>()({ initial: 0, Subscribed: (sofar) => sofar + 1 })
const another = Fold.make<Subscribed>()({ initial: 0, Subscribed: (sofar) => sofar + 1 })

class Full extends Error {
  readonly _tag = "Full"
}

/** Subscribes as long as there are seats; what it was decided on is told. */
const subscribe =
  (store: Courses["Service"], course: string, student: string, capacity: number, seen: Array<string> = []) =>
  (made: () => void) =>
    store.decide({ taken: Decision.tagged({ course }, students) }, ({ taken }) => {
      made()
      seen.push(`${student} after ${taken.join()}`)
      return taken.length < capacity
        ? { stream: newStream(), messages: new Subscribed({ course, student }), metadata: { correlationId: student } }
        : Effect.fail(new Full())
    })

export const together: Part = (it) => {
  it.effect("writes what 40 have decided in two appends, in the order they came in", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { appends, gate, store } = given
      const course = newCourse()
      const seen: Array<string> = []
      const fibers = yield* started(given, names(40).map((name) => subscribe(store, course, name, 100, seen)))
      assert.lengthOf(appends, 1)
      yield* gate.open
      const positions = yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(appends.map(({ length }) => length), [1, 39])
      assert.deepStrictEqual(seen, names(40).map((name, i) => `${name} after ${names(i).join()}`))
      assert.deepStrictEqual(yield* stored(store, course), names(40).map((name) => `${name} ${name}`))
      assert.isTrue(positions.every(([position]) => position?.version === 1))
    }).pipe(Effect.scoped))

  it.effect("writes together what different students decide on one course", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { appends, gate, store } = given
      const course = newCourse()
      const deciding = (fold: typeof count) => (name: string) => (made: () => void) => {
        const student = `${course} ${name}`
        const sources = { taken: Decision.tagged({ course }, fold), mine: Decision.tagged({ student }, count) }
        return store.decide(sources, ({ mine, taken }) => {
          made()
          const metadata = { correlationId: `${taken}` }
          return mine === 0 ? { stream: newStream(), messages: new Subscribed({ course, student }), metadata } : []
        })
      }
      const fibers = yield* started(given, [...names(20), "s3", "s4"].map(deciding(count)))
      yield* gate.open
      yield* Fiber.joinAll(fibers)
      assert.isAtMost(appends.length, 3)
      // Each fold has a state of its own.
      yield* Effect.forEach(names(40), (name, i) => deciding(i % 2 === 0 ? count : another)(name)(() => {}), {
        concurrency: "unbounded"
      })
      const found = yield* stored(store, course)
      assert.deepStrictEqual(found.map((line) => line.split(" ").at(-1)), Arr.makeBy(40, String))
    }).pipe(Effect.scoped))

  it.effect("refuses many with one look, once the course is full", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { appends, calls, gate, store } = given
      const course = newCourse()
      const fibers = yield* started(given, names(30).map((name) => subscribe(store, course, name, 5)))
      calls.ends = 0
      yield* gate.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), Arr.makeBy(30, (i) => i < 5))
      assert.deepStrictEqual([appends.length, calls.ends], [2, 0])
      const more = yield* started(given, [
        subscribe(store, course, "a", 6),
        ...names(20).map((name) => subscribe(store, course, name, 6))
      ])
      calls.ends = 0
      yield* gate.open
      yield* Effect.forEach(more, Fiber.await)
      assert.deepStrictEqual([appends.length, calls.ends], [3, 1])
    }).pipe(Effect.scoped))

  it.effect("decides all again when another process writes exactly as many messages in between", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const other = yield* observed
      const outside = yield* outsider
      const { before, gate, store } = given
      const stream = newStream()
      const course = newCourse()
      const message = (student: string) => new Subscribed({ course, student })
      const elsewhere = (amount: number) =>
        Effect.orDie(outside(other.store.write(stream, Arr.makeBy(amount, (i) => message(`x${amount}${i}`)))))
      // The first one leaves alone, the others together: each batch meets a stream that is longer than was read.
      before.set(1, elsewhere(1))
      before.set(3, elsewhere(3))
      const fibers = yield* started<void, unknown>(
        given,
        names(6).map((student, i) => (made) => {
          const decided = (sofar: ReadonlyArray<string>) => {
            made()
            return { stream, messages: message(student), metadata: { correlationId: sofar.join() } }
          }
          return i % 2 === 0
            ? Effect.asVoid(store.update(stream, students, (sofar) => {
              made()
              return Effect.succeed(message(`${student}:${sofar.length}`))
            }))
            : Effect.asVoid(store.decide({ mine: Decision.stream(stream, students) }, ({ mine }) => decided(mine)))
        })
      )
      yield* gate.open
      yield* Fiber.joinAll(fibers)
      const all = yield* Stream.runCollect(store.read(stream))
      const sofar: Array<string> = []
      for (const { message: { student }, metadata, version } of all) {
        if (metadata.correlationId !== undefined) assert.strictEqual(metadata.correlationId, sofar.join())
        else if (student.includes(":")) assert.strictEqual(student.split(":")[1], `${version - 1}`)
        sofar.push(student)
      }
      const own = sofar.filter((name) => name.startsWith("s")).map((name) => name.split(":")[0] ?? "")
      assert.deepStrictEqual(own, names(6))
      assert.lengthOf(sofar, 10)
    }).pipe(Effect.scoped))

  it.effect("reports no failure that was decided on what was refused", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const other = yield* observed
      const outside = yield* outsider
      const course = newCourse()
      const { before, gate, store } = given
      // The last seat goes to somebody elsewhere. So the first one takes none; who has failed because it did may think again.
      before.set(1, Effect.orDie(outside(other.store.write(newStream(), new Subscribed({ course, student: "x" })))))
      const seen: Array<string> = []
      const fails = (made: () => void) =>
        store.decide({ taken: Decision.tagged({ course }, students) }, ({ taken }) => {
          made()
          seen.push(taken.join())
          return taken.includes("s0") ? Effect.fail(new Full()) : []
        })
      const fibers = yield* started<unknown, unknown>(given, [subscribe(store, course, "s0", 1), fails, fails])
      yield* gate.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, true, true])
      assert.deepStrictEqual(seen, ["s0", "s0", "x", "x"])
      assert.deepStrictEqual(yield* stored(store, course), ["x"])
    }).pipe(Effect.scoped))

  it.effect("leaves the others unharmed when one dies, is interrupted, or repeats a message", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { appends, gate, store } = given
      const course = newCourse()
      const repeated = new Subscribed({ course: newCourse(), student: "stored" })
      yield* store.write(newStream(), repeated)
      const dies = (made: () => void) =>
        store.decide({ taken: Decision.tagged({ course }, students) }, () => {
          made()
          return Effect.die("of itself")
        })
      const repeats = (made: () => void) =>
        store.decide({ taken: Decision.tagged({ course }, students) }, () => {
          made()
          return { stream: newStream(), messages: repeated }
        })
      const fibers = yield* started<unknown, unknown>(given, [
        subscribe(store, course, "s0", 9),
        subscribe(store, course, "s1", 9),
        dies,
        subscribe(store, course, "taken out", 9),
        repeats,
        subscribe(store, course, "s2", 9)
      ])
      const [, , , takenOut] = fibers
      if (takenOut !== undefined) yield* Fiber.interrupt(takenOut)
      yield* gate.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, true, false, false, false, true])
      assert.deepStrictEqual(yield* stored(store, course), ["s0 s0", "s1 s1", "s2 s2"])
      const [, , died, , duplicate] = exits
      assert.isTrue(died !== undefined && Exit.hasDies(died))
      assert.include(String(duplicate), "DuplicateMessageError")
      assert.isAtLeast(appends.length, 4)
    }).pipe(Effect.scoped))

  it.effect("lets the others go on when one is interrupted whose append is under way", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { gate, store } = given
      const course = newCourse()
      const [first, ...others] = yield* started(given, names(3).map((name) => subscribe(store, course, name, 9)))
      assert.isDefined(first)
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* gate.open
      yield* Fiber.joinAll(others)
      // It was held before it reached the database.
      assert.deepStrictEqual(yield* stored(store, course), ["s1 s1", "s2 s2"])
    }).pipe(Effect.scoped))

  it.effect("fails all that were under way when the connection is lost, and goes on with the others", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { before, gate, store } = given
      const course = newCourse()
      const lost = new SqlError({ reason: new UnknownError({ cause: new Error("lost"), message: "lost" }) })
      const fibers = yield* started(given, names(5).map((name) => subscribe(store, course, name, 9)))
      before.set(2, Effect.fail(lost))
      yield* gate.open
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false, false, false, false])
      yield* subscribe(store, course, "s9", 9)(() => {})
      assert.deepStrictEqual(yield* stored(store, course), ["s0 s0", "s9 s9"])
    }).pipe(Effect.scoped))

  it.effect("goes on when a fold throws on what is being written", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { gate, store } = given
      const stream = newStream()
      const course = newCourse()
      const message = (student: string) => new Subscribed({ course, student })
      const throws = Fold.make<Subscribed>()({
        initial: 0,
        Subscribed: (sofar, { student }) => {
          if (student === "broken") throw new Error("cannot be folded")
          return sofar + 1
        }
      })
      yield* gate.close
      const writes = yield* Effect.forkChild(store.update(stream, throws, () => Effect.succeed(message("broken"))), {
        startImmediately: true
      })
      yield* until(() => given.appends.length === 1)
      const reads = yield* Effect.forkChild(store.update(stream, throws, () => Effect.succeed([])), {
        startImmediately: true
      })
      yield* Effect.repeat(Effect.yieldNow, { times: 30 })
      yield* gate.open
      assert.strictEqual((yield* Fiber.join(writes)).version, 1)
      assert.isTrue(Exit.hasDies(yield* Fiber.await(reads)))
      const { version } = yield* store.update(stream, count, (sofar) => Effect.succeed(message(`after ${sofar}`)))
      assert.strictEqual(version, 2)
    }).pipe(Effect.scoped))

  it.effect("asks once where many folds were made on the same, and forgets those that nobody asks for", () =>
    Effect.gen(function*() {
      const { appends, calls, store } = yield* observed
      const course = newCourse()
      const on = (fold: typeof count) => (student: string) =>
        store.decide(
          { taken: Decision.tagged({ course }, fold) },
          () => Effect.as(Effect.yieldNow, { stream: newStream(), messages: new Subscribed({ course, student }) })
        )
      const anew = () => Fold.make<Subscribed>()({ initial: 0, Subscribed: (sofar: number) => sofar + 1 })
      yield* Effect.forEach(names(40), (name) => on(anew())(name), { concurrency: 8 })
      assert.isTrue(appends.every((items) => items.flatMap(({ conditions = [] }) => conditions).length === 1))
      // The boundary is decided on all the while.
      const last = 201
      yield* Effect.forEach(names(last + 1), (name, i) =>
        Effect.suspend(() => {
          if (i === last) calls.ends = 0
          return on(i === 0 || i === last ? count : another)(name)
        }), { concurrency: 4 })
      assert.isAtLeast(calls.ends, 1)
    }).pipe(Effect.scoped))

  it.effect("interrupts those who wait when the layer closes", () =>
    Effect.gen(function*() {
      const given = yield* observed
      const { gate, scope, store } = given
      const course = newCourse()
      const fibers = yield* started(given, names(4).map((name) => subscribe(store, course, name, 9)))
      yield* Scope.close(scope, Exit.void)
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      assert.isTrue(exits.every(Exit.hasInterrupts))
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(subscribe(store, course, "late", 9)(() => {}))))
      yield* gate.open
    }).pipe(Effect.scoped))
}
