/** Given, when, then for deciders and decisions: what holds passes, and what does not says what it was given. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Layer, Schema } from "effect"
import { Decider, Decision, Fold, KeyEncryption, Message, MessageStore, Personal } from "effect-message-store"
import { Scenario } from "effect-message-store/testing"

class SeatBooked extends Schema.TaggedClass<SeatBooked>()("SeatBooked", {
  ...Message.fields,
  passenger: Schema.String
}) {}
class SeatReleased extends Schema.TaggedClass<SeatReleased>()("SeatReleased", { ...Message.fields }) {}
class FlightFull extends Schema.TaggedError<FlightFull>()("FlightFull", { seats: Schema.Natural }) {}

const seatsTaken = Fold.make<SeatBooked | SeatReleased>()({
  initial: 0,
  SeatBooked: (taken) => taken + 1,
  SeatReleased: (taken) => taken - 1
})

type Command = { readonly book: string } | "release" | "crash"

const flight = Decider.make(seatsTaken, (command: Command, taken) => {
  if (command === "crash") throw new Error("crashed")
  if (command === "release") return taken === 0 ? [] : new SeatReleased({})
  return taken < 2 ? new SeatBooked({ passenger: command.book }) : new FlightFull({ seats: taken })
})

const { given } = Scenario.of(flight)
const seat = (passenger: string) => new SeatBooked({ passenger })

describe("a scenario holds", () => {
  it.effect("when the decider writes what is expected, whatever its ids and times", () =>
    Effect.gen(function*() {
      yield* given().when({ book: "Ada" }).thenWrites(seat("Ada"))
      yield* given(seat("Ada"), seat("Grace"), new SeatReleased({})).when({ book: "Radia" }).thenWrites(seat("Radia"))
    }))

  it.effect("when nothing is written, and nothing is expected", () => given().when("release").thenNothing)

  it.effect("when the command is refused as expected", () =>
    given(seat("Ada"), seat("Grace")).when({ book: "Radia" }).thenFails(new FlightFull({ seats: 2 })))
})

const fails = (scenario: Effect.Effect<void>, ...parts: ReadonlyArray<string>) =>
  Effect.map(Effect.exit(scenario), (exit) => {
    const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
    assert.instanceOf(error, Scenario.ScenarioError)
    for (const part of parts) assert.include(error.message, part)
  })

describe("a scenario fails, and says what was given, expected and got,", () => {
  it.effect("when another message is written", () =>
    fails(
      given(seat("Grace")).when({ book: "Ada" }).thenWrites(seat("Radia")),
      "given    [{\"_tag\":\"SeatBooked\",\"passenger\":\"Grace\"}]",
      "when     {\"book\":\"Ada\"}",
      "expected {\"writes\":[{\"_tag\":\"SeatBooked\",\"passenger\":\"Radia\"}]}",
      "got      {\"writes\":[{\"_tag\":\"SeatBooked\",\"passenger\":\"Ada\"}]}"
    ))

  it.effect("when fewer messages are written, or none", () =>
    Effect.andThen(
      fails(given().when({ book: "Ada" }).thenWrites(seat("Ada"), seat("Ada")), "got      {\"writes\":[{"),
      fails(given().when({ book: "Ada" }).thenNothing, "given    nothing", "expected {\"writes\":[]}")
    ))

  it.effect("when the refusal is another one, or the decider crashes", () =>
    Effect.gen(function*() {
      const full = given(seat("Ada"), seat("Grace")).when({ book: "Radia" })
      yield* fails(full.thenFails(new FlightFull({ seats: 3 })), "\"seats\":3", "\"seats\":2")
      yield* fails(full.thenWrites(seat("Radia")), "FlightFull")
      yield* fails(given().when("crash").thenNothing, "crashed")
      yield* fails(given().when({ book: "Ada" }).thenFails(new FlightFull({ seats: 0 })), "\"writes\"")
    }))
})

describe("a fold", () => {
  it("leaves out what it has no case for, and takes whatever state a case returns", () => {
    const last = Fold.make<SeatBooked | SeatReleased>()({
      initial: undefined as string | undefined,
      SeatBooked: (_, { passenger }) => passenger,
      SeatReleased: () => undefined
    })
    assert.deepStrictEqual(last.types, ["SeatBooked", "SeatReleased"])
    const ada = last.evolve(last.initial, seat("Ada"))
    assert.strictEqual(last.evolve(ada, { _tag: "constructor" }), "Ada")
    assert.isUndefined(last.evolve(ada, new SeatReleased({})))
  })
})

class Opened extends Schema.TaggedClass<Opened>()("Opened", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  seats: Schema.Natural
}) {}
class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  student: Message.tag("student", Schema.String)
}) {}
class Closed extends Schema.TaggedClass<Closed>()("Closed", { ...Message.fields }) {}
class Refused extends Schema.TaggedError<Refused>()("Refused", { reason: Schema.String }) {}

const CourseEvent = Schema.Union([Opened, Subscribed, Closed])
class Courses extends MessageStore.Service<Courses>()("test/Courses", { name: "courses", schema: CourseEvent }) {}
class Limit extends Context.Service<Limit, number>()("test/Limit") {}

const seats = Fold.make<typeof CourseEvent.Type>()({ initial: 0, Opened: (_, opened) => opened.seats })
const taken = Fold.make<typeof CourseEvent.Type>()({ initial: 0, Subscribed: (count) => count + 1 })
const isClosed = Fold.make<typeof CourseEvent.Type>()({ initial: false, Closed: () => true })

const subscribe = Effect.fn("subscribe")(function*(course: string, student: string) {
  const courses = yield* Courses
  const limit = yield* Limit
  if (student === "crash") return yield* Effect.die(new Error("crashed"))
  yield* courses.decide(
    {
      seats: Decision.tagged({ course }, seats),
      taken: Decision.tagged({ course }, taken),
      courses: Decision.tagged({ student }, taken),
      closed: Decision.stream("school", isClosed)
    },
    (states) => {
      if (states.closed) return []
      if (states.taken >= states.seats) return new Refused({ reason: "full" })
      return states.courses < limit
        ? { stream: `student-${student}`, messages: new Subscribed({ course, student }) }
        : new Refused({ reason: "limit" })
    }
  )
  if (student === "late") return yield* new Refused({ reason: "late" })
})

describe("a scenario on a store", () => {
  const onCourses = Scenario.on(Courses, subscribe)
  const opened = { stream: "course-a", messages: new Opened({ course: "a", seats: 2 }) }
  const subscribed = (course: string, student: string) => ({
    stream: `student-${student}`,
    messages: new Subscribed({ course, student })
  })
  const limited = <E>(scenario: Effect.Effect<void, E, Limit>) => Effect.provideService(scenario, Limit, 1)

  it.effect("holds when the decision, on tags and streams, writes what is expected", () =>
    limited(Effect.gen(function*() {
      const first = onCourses.given(opened, subscribed("a", "Grace")).when("a", "Ada")
      yield* first.thenWrites(subscribed("a", "Ada"))
      yield* first.thenWrites(subscribed("a", "Ada")) // again, on a store of its own
      yield* onCourses.given(opened, { stream: "school", messages: new Closed({}) }).when("a", "Ada").thenNothing
    })))

  it.effect("holds when it is refused as expected", () =>
    limited(Effect.gen(function*() {
      const refused = (reason: string) => new Refused({ reason })
      yield* onCourses.given().when("a", "Ada").thenFails(refused("full"))
      const both: Scenario.InStream<typeof CourseEvent.Type> = {
        stream: "course-b",
        messages: [new Opened({ course: "b", seats: 2 }), new Subscribed({ course: "b", student: "Ada" })]
      }
      yield* onCourses.given(opened, both).when("a", "Ada").thenFails(refused("limit"))
    })))

  it.effect("fails, and says what was given, expected and got", () =>
    Effect.gen(function*() {
      const scenario = onCourses.given(opened).when("a", "Ada")
      yield* fails(
        limited(scenario.thenWrites(subscribed("a", "Grace"))),
        "given    [{\"stream\":\"course-a\",\"message\":{\"_tag\":\"Opened\",\"course\":\"a\",\"seats\":2}}]",
        "when     [\"a\",\"Ada\"]",
        "expected {\"writes\":[{\"stream\":\"student-Grace\",\"message\":{\"_tag\":\"Subscribed\",\"course\":\"a\",",
        "got      {\"writes\":[{\"stream\":\"student-Ada\","
      )
      const elsewhere = { ...subscribed("a", "Ada"), stream: "elsewhere" }
      yield* fails(limited(scenario.thenWrites(elsewhere)), "\"elsewhere\"")
      yield* fails(limited(scenario.thenNothing), "got      {\"writes\":[{")
      yield* fails(limited(onCourses.given().when("a", "Ada").thenNothing), "given    nothing", "full")
      yield* fails(limited(onCourses.given().when("a", "crash").thenNothing), "crashed")
      // What was written before it failed is told.
      const late = onCourses.given(opened).when("a", "late")
      yield* fails(limited(late.thenFails(new Refused({ reason: "late" }))), "\"writes\":[{\"stream\":\"student-late\"")
    }))
})

describe("a scenario with personal fields", () => {
  class Registered extends Schema.TaggedClass<Registered>()("Registered", {
    ...Message.fields,
    customer: Schema.String,
    email: Message.personal(Schema.String, { subject: "customer" })
  }) {}
  class Customers extends MessageStore.Service<Customers>()("test/ScenarioCustomers", {
    name: "customers",
    schema: Registered
  }) {}
  const registered = (email: string) => ({
    stream: "ada",
    messages: new Registered({ customer: "ada", email: Personal.known(email) })
  })
  const register = Effect.fn("register")(function*(email: string) {
    const customers = yield* Customers
    yield* customers.write("ada", registered(email).messages)
  })
  const encryption = Layer.unwrap(Effect.map(KeyEncryption.generate("test"), KeyEncryption.layer))
  const onCustomers = Scenario.on(Customers, register).given(registered("old")).when("new")

  it.effect("asks for what encrypts them, and compares their values", () =>
    Effect.gen(function*() {
      const scenario: Effect.Effect<void, never, KeyEncryption.KeyEncryption> = onCustomers.thenWrites(
        registered("new")
      )
      yield* Effect.provide(scenario, encryption)
    }))

  it.effect("says that values differ which it does not print", () =>
    fails(
      Effect.orDie(Effect.provide(onCustomers.thenWrites(registered("another")), encryption)),
      "\"email\":\"<redacted>\"",
      "They differ in what is not printed: personal values, or classes."
    ))
})
