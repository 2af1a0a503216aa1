/**
 * Courses and students, decided on by many processes, and the oracle that evaluates each decision anew. Free of vitest: the
 * processes use it too.
 */
import { Effect, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"

const course = Message.tag("course", Schema.String)
const student = Message.tag("student", Schema.String)

export class CapacityChanged extends Schema.TaggedClass<CapacityChanged>()("CapacityChanged", {
  ...Message.fields,
  course,
  capacity: Schema.Natural
}) {}
export class Subscribed
  extends Schema.TaggedClass<Subscribed>()("Subscribed", { ...Message.fields, course, student })
{}
export class Dropped extends Schema.TaggedClass<Dropped>()("Dropped", { ...Message.fields, course, student }) {}

const CourseEvent = Schema.Union([CapacityChanged, Subscribed, Dropped])
type CourseEvent = typeof CourseEvent.Type

export class Courses
  extends MessageStore.Service<Courses>()("test/Courses", { name: "courses", schema: CourseEvent })
{}

const seats = Fold.make<CourseEvent>()({ initial: 0, CapacityChanged: (_, { capacity }) => capacity })
const taken = Fold.make<CourseEvent>()({
  initial: 0,
  Subscribed: (count) => count + 1,
  Dropped: (count) => count - 1
})

/** What a decision is made on; written with what it decides. */
interface Seen {
  readonly seats: number
  readonly taken: number
  readonly courses: number
  readonly both: number
}

export const maximumCourses = 2

export class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}

const show = ({ both, courses, seats: all, taken: count }: Seen) =>
  `${all} seats, ${count} taken, ${courses} courses, ${both} of both`

const kept = (name: string, fold: Fold.Fold<number, CourseEvent>) =>
  Fold.withSnapshot(fold, { name, schema: Schema.Int, every: 2 })

const folds = { seats, taken }
const keptFolds = { seats: kept("seats", seats), taken: kept("taken", taken) }

const sources = (courseId: string, studentId: string, by: typeof folds | typeof keptFolds) => ({
  seats: Decision.tagged({ course: courseId }, by.seats),
  taken: Decision.tagged({ course: courseId }, by.taken),
  courses: Decision.tagged({ student: studentId }, by.taken),
  both: Decision.tagged({ student: studentId, course: courseId }, by.taken)
})

const allows = (message: CourseEvent, seen: Seen): boolean =>
  message._tag === "Subscribed"
    ? seen.taken < seen.seats && seen.courses < maximumCourses && seen.both === 0
    : message._tag === "CapacityChanged" || seen.both > 0

/** Decides on a subscription, or on giving one up. */
export const decide = (store: Courses["Service"], stream: string, message: Subscribed | Dropped, way: Way) =>
  store.decide(
    sources(message.course, message.student, way === "with snapshots" ? keptFolds : folds),
    (seen) => allows(message, seen) ? { stream, messages: message, metadata: { decidedOn: show(seen) } } : new Refused()
  )

/** Replays what was accepted, in the order of global positions, and evaluates each decision anew. */
export const judge = Effect.fnUntraced(function*(store: Courses["Service"]) {
  const before: Array<CourseEvent> = []
  const wrong: Array<string> = []
  const holds = (tags: Message.Tags) => (message: CourseEvent) =>
    Object.entries(tags).every(([name, value]) => (message as unknown as Message.Tags)[name] === value)
  const stateOf = (tags: Message.Tags, fold: Fold.Fold<number, CourseEvent>) =>
    before.filter(holds(tags)).reduce((state, message) => fold.evolve(state, message), fold.initial)
  let decisions = 0
  const reader = yield* store.reader
  yield* Stream.runForEach(reader.readWildcard("%"), ({ globalPosition, message, metadata }) =>
    Effect.sync(() => {
      if (message._tag !== "CapacityChanged") {
        decisions++
        const { course: courseId, student: studentId } = message
        const now: Seen = {
          seats: stateOf({ course: courseId }, seats),
          taken: stateOf({ course: courseId }, taken),
          courses: stateOf({ student: studentId }, taken),
          both: stateOf({ course: courseId, student: studentId }, taken)
        }
        const then = metadata["decidedOn"]
        if (!allows(message, now) || show(now) !== then) {
          wrong.push(
            `${message._tag} at ${globalPosition} was decided on ${String(then)}, but there were ${show(now)}`
          )
        }
      }
      before.push(message)
    }))
  return { decisions, wrong }
}, Effect.scoped)

/** How a process decides; the wrong ways are proofs that the oracle would notice. */
export type Way =
  | "as it is"
  /** The same, on snapshots and on what each process remembers. */
  | "with snapshots"
  /** The last position of the store, instead of the last one of each tag. */
  | "with one position"

export interface DecidersConfig {
  readonly url: string
  readonly database: string
  readonly name: string
  readonly way: Way
  readonly deciders: number
  readonly decisions: number
  readonly courses: number
  readonly students: number
  /** Capacities change to fewer than this. */
  readonly capacities: number
  /** Whether all of its deciders begin with a decision on the first course, at once: all but one of these are made together. */
  readonly beginsTogether: boolean
}

/** What a process did. */
export interface Counts {
  accepted: number
  refused: number
  rolledBack: number
  conflicts: number
  deadlocks: number
}
