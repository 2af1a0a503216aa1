/**
 * A handler that fails is tried again; when it keeps failing, its message is parked, and the others go on. What is parked
 * can be looked at, replayed, or discarded.
 *
 *   node --conditions=@effect-message-store/source examples/08-retry-park-replay.ts
 */
import { Array as Arr, Console, Effect, Layer, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class SignedUp extends Schema.TaggedClass<SignedUp>()("SignedUp", {
  ...Message.fields,
  email: Schema.String
}) {}

class Users extends MessageStore.Service<Users>()("examples/Users", {
  name: "example_users",
  schema: SignedUp
}) {}

class AllUsers extends AggregatedStream.Service<AllUsers>()("examples/AllUsers", {
  store: Users,
  name: "example_all_users",
  patterns: "user-%",
  partitioner: Partitioner.constant()
}) {}

class Welcome extends Subscription.Service<Welcome>()("examples/Welcome", {
  stream: AllUsers,
  name: "example_welcome",
  acknowledge: "message",
  retry: Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(2)]), // three attempts in all
  onFailure: "park" // which is the default
}) {}

class NotSent extends Schema.TaggedError<NotSent>()("NotSent", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

const send = Effect.fn("send")(function*(email: string, attempt: number) {
  if (email.startsWith("busy@") && attempt === 1) return yield* new NotSent({ reason: "try again later" })
  if (!email.includes("@")) return yield* new NotSent({ reason: `"${email}" is no address` })
  yield* Console.log(`sent to ${email}, at attempt ${attempt}`)
})

const program = Effect.gen(function*() {
  const users = yield* Users
  const stream = yield* AllUsers
  const welcome = yield* Welcome
  // So that this example begins anew on a database where it ran before.
  yield* truncate(users)
  yield* stream.rebuild
  yield* welcome.reset()

  for (const [i, email] of ["ada@example.com", "grace", "busy@example.com", "nobody", "edsger@example.com"].entries()) {
    yield* users.write(`user-${i}`, new SignedUp({ email }))
  }
  yield* stream.projector.runOnce

  yield* Effect.forkScoped(welcome.run((user, { attempt }) => send(user.email, attempt)))
  yield* Effect.repeat(welcome.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced("20 millis") })

  const parked = yield* welcome.parked
  for (const { attempts, error, position } of parked) {
    yield* Console.log(`parked at position ${position} after ${attempts} attempts: ${error.tag}: ${error.message}`)
  }

  // One of them can be corrected: it goes to a handler once more. The other is beyond help.
  const of = (email: string) => Effect.fromOption(Arr.findFirst(parked, ({ message }) => message?.email === email))
  const grace = yield* of("grace")
  const nobody = yield* of("nobody")
  const { handled } = yield* welcome.replay((user, { attempt }) => send(`${user.email}@example.com`, attempt), [grace])
  yield* Console.log(`replayed: ${handled}; discarded nobody: ${yield* welcome.discard(nobody)}`)
  yield* Console.log(`parked now: ${(yield* welcome.parked).length}`)
}).pipe(
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "None") // each failure would be logged, and each parked message
)

const Services = Welcome.layer.pipe(
  Layer.provideMerge(AllUsers.layer),
  Layer.provideMerge(Users.layer),
  Layer.provide(layerDatabase())
)

await program.pipe(Effect.provide(Services), Effect.runPromise)
