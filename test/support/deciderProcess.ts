/** Deciders in a process of their own, until each has made its decisions. `deciderProcess.ts CONFIG` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Random, Redacted, Schema } from "effect"
import type { MessageStore } from "effect-message-store"
import process from "node:process"
import * as PostgresStorage from "../../src/postgres/storage.ts"
import { Storage } from "../../src/Storage.ts"
import {
  CapacityChanged,
  type Counts,
  Courses,
  decide,
  type DecidersConfig,
  Dropped,
  type Refused,
  Subscribed
} from "./deciding.ts"

const config = JSON.parse(process.argv[2] ?? "") as DecidersConfig

/** The last position of the store stands for the last one of each tag. */
const withOnePosition = (opened: Storage["Service"]): Storage["Service"] => ({
  ...opened,
  ends: (streams, tags) =>
    Effect.zipWith(
      opened.ends(streams, tags),
      opened.readPattern({
        pattern: "%",
        fromPosition: 0,
        toPosition: Number.MAX_SAFE_INTEGER,
        direction: "backward",
        limit: 1
      }),
      (ends, { messages: [last] }) => ({ ...ends, tags: tags.map(() => last?.globalPosition ?? 0) })
    )
})

const storage = Layer.effect(
  Storage,
  Effect.map(Storage, (opened) => Storage.of(config.way === "with one position" ? withOnePosition(opened) : opened))
).pipe(Layer.provide(PostgresStorage.layer("courses")))

class RolledBack extends Schema.TaggedError<RolledBack>()("RolledBack", {}) {}

type Failure = MessageStore.DecideError | MessageStore.WriteError | Refused | RolledBack

const counts: Counts = { accepted: 0, refused: 0, rolledBack: 0, conflicts: 0, deadlocks: 0 }

const counted = (attempt: Effect.Effect<unknown, Failure>) =>
  attempt.pipe(
    Effect.tap(() => Effect.sync(() => counts.accepted++)),
    Effect.catchTags({
      Refused: () => Effect.sync(() => counts.refused++),
      RolledBack: () => Effect.sync(() => counts.rolledBack++),
      DecisionConflictError: () => Effect.sync(() => counts.conflicts++),
      SqlError: (error) => error.isRetryable ? Effect.sync(() => counts.deadlocks++) : Effect.fail(error)
    })
  )

const decider = Effect.fnUntraced(function*(number: number) {
  const store = yield* Courses
  const below = (most: number) => Random.nextIntBetween(0, most)
  for (let i = 0; i < config.decisions; i++) {
    const stream = `${config.name}-${number}-${i}`
    const course = `c${yield* below(config.courses)}`
    const student = `s${yield* below(config.students)}`
    const kind = yield* below(10)
    const lasts = yield* below(15)
    const capacity = yield* below(config.capacities)
    const changed = store.write(`${stream}-capacity`, new CapacityChanged({ course, capacity }))
    const decided = decide(
      store,
      stream,
      kind < 7 ? new Subscribed({ course, student }) : new Dropped({ course, student }),
      config.way
    )
    const other = store.write(
      `${stream}-other`,
      new CapacityChanged({ course: `c${yield* below(config.courses)}`, capacity })
    )
    // Half of what is written stays open for a while, has lower positions than it might, and is taken back now and then.
    const transaction = yield* below(5)
    const attempt: Effect.Effect<unknown, Failure> = transaction < 2
      ? kind === 9 ? changed : decided
      : store.withTransaction(Effect.gen(function*() {
        if (transaction === 2) yield* other
        yield* Effect.sleep(lasts)
        yield* kind === 9 ? changed : decided
        yield* Effect.sleep(lasts)
        if (lasts < 4) return yield* new RolledBack()
      }))
    yield* counted(attempt)
  }
})

/** Of a student whom nobody else has. */
const beginning = Effect.fnUntraced(function*(number: number) {
  const student = `${config.name}-${number}`
  yield* counted(decide(yield* Courses, student, new Subscribed({ course: "c0", student }), config.way))
})

const all = <E, R>(each: (number: number) => Effect.Effect<void, E, R>) =>
  Effect.forEach(Array.from({ length: config.deciders }, (_, i) => i), each, {
    concurrency: "unbounded",
    discard: true
  })

const client = PgClient.layer({
  url: Redacted.make(config.url),
  database: config.database,
  applicationName: config.name,
  maxConnections: config.deciders + 2
})

process.on("disconnect", () => process.exit(1)) // whoever started it is gone

NodeRuntime.runMain(
  Effect.andThen(config.beginsTogether ? all(beginning) : Effect.void, all(decider)).pipe(
    Effect.andThen(Effect.callback<void>((resume) => void process.send?.(counts, () => resume(Effect.void)))),
    Effect.provide(Layer.provide(Layer.provide(Courses.layerStorage, storage), client))
  ),
  {
    teardown: (exit) => process.exit(exit._tag === "Success" ? 0 : 1)
  }
)
