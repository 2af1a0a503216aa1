/**
 * Rules across streams: a course has a capacity, a student a limit, and no subscription belongs to one of them alone. The
 * example of https://dcb.events/examples/course-subscriptions/.
 *
 *   node --conditions=@effect-message-store/source examples/09-course-and-student.ts
 */
import { Console, Effect, Layer, Result, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

// A message carries the tags that rules are about.
class CourseDefined extends Schema.TaggedClass<CourseDefined>()("CourseDefined", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  capacity: Schema.Natural
}) {}
class CapacityChanged extends Schema.TaggedClass<CapacityChanged>()("CapacityChanged", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  capacity: Schema.Natural
}) {}
class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  student: Message.tag("student", Schema.String)
}) {}

const CourseEvent = Schema.Union([CourseDefined, CapacityChanged, Subscribed])

class Courses extends MessageStore.Service<Courses>()("examples/Courses", {
  name: "example_courses",
  schema: CourseEvent
}) {}

// Small folds, one for each question.
const capacity = Fold.make<typeof CourseEvent.Type>()({
  initial: undefined as number | undefined,
  CourseDefined: (_, { capacity: seats }) => seats,
  CapacityChanged: (_, { capacity: seats }) => seats
})
const subscriptions = Fold.make<typeof CourseEvent.Type>()({ initial: 0, Subscribed: (count) => count + 1 })

class Refused extends Schema.TaggedError<Refused>()("Refused", { reason: Schema.String }) {}

const maximumCourses = 3

// All four are read in one view, and the subscription is written only if none of them has changed.
const subscribe = Effect.fn("subscribe")(function*(course: string, student: string) {
  const courses = yield* Courses
  yield* courses.decide(
    {
      seats: Decision.tagged({ course }, capacity),
      taken: Decision.tagged({ course }, subscriptions),
      courses: Decision.tagged({ student }, subscriptions),
      already: Decision.tagged({ student, course }, subscriptions)
    },
    (states) => {
      if (states.seats === undefined) return new Refused({ reason: "no such course" })
      if (states.already > 0) return new Refused({ reason: "subscribed already" })
      if (states.taken >= states.seats) return new Refused({ reason: "the course is full" })
      if (states.courses >= maximumCourses) return new Refused({ reason: "too many courses" })
      return { stream: `course-${course}`, messages: new Subscribed({ course, student }) }
    }
  )
})

const program = Effect.gen(function*() {
  const courses = yield* Courses
  yield* truncate(courses) // so that this example starts afresh on a database where it ran before

  const ids = ["algebra", "botany", "chess", "drawing"]
  for (const course of ids) yield* courses.write(`course-${course}`, new CourseDefined({ course, capacity: 2 }))

  // Three students want all courses, all at once.
  const wishes = ["Ada", "Grace", "Radia"].flatMap((student) => ids.map((course) => subscribe(course, student)))
  const answers = yield* Effect.forEach(wishes, Effect.result, { concurrency: "unbounded" })
  const refusals = answers.filter(Result.isFailure).length
  yield* Console.log(`${answers.length - refusals} subscriptions, ${refusals} refusals`)

  for (const course of ids) {
    const taken = yield* Stream.runCount(courses.readTagged({ course }, { types: ["Subscribed"] }))
    if (taken > 2) yield* Console.log(`${course} is overbooked`)
  }
  for (const student of ["Ada", "Grace", "Radia"]) {
    const taken = yield* Stream.runCount(courses.readTagged({ student }))
    if (taken > maximumCourses) yield* Console.log(`${student} has too many courses`)
  }

  yield* courses.write("course-algebra", new CapacityChanged({ course: "algebra", capacity: 9 }))
  yield* subscribe("algebra", "Barbara")
  yield* subscribe("algebra", "Barbara").pipe(
    Effect.catchTag("Refused", ({ reason }) => Console.log(`Barbara: ${reason}`))
  )
})

await program.pipe(Effect.provide(Layer.provide(Courses.layer, layerDatabase())), Effect.runPromise)
