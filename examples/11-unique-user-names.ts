/**
 * A name belongs to one user at a time: a rule about all streams, by a tag.
 *
 *   node --conditions=@effect-message-store/source examples/11-unique-user-names.ts
 */
import { Console, Effect, Layer, Result, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class Registered extends Schema.TaggedClass<Registered>()("Registered", {
  ...Message.fields,
  name: Message.tag("name", Schema.String)
}) {}
class Renamed extends Schema.TaggedClass<Renamed>()("Renamed", {
  ...Message.fields,
  from: Message.tag("name", Schema.String), // both names are tags: who had the one has it no more
  to: Message.tag("name", Schema.String)
}) {}

const UserEvent = Schema.Union([Registered, Renamed])

class Users extends MessageStore.Service<Users>()("examples/Users", { name: "example_users", schema: UserEvent }) {}

class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", { name: Schema.String }) {}

/** Whether somebody has the name. */
const isTaken = (name: string) =>
  Fold.make<typeof UserEvent.Type>()({ initial: false, Registered: () => true, Renamed: (_, { to }) => to === name })

const register = Effect.fn("register")(function*(user: string, name: string) {
  const users = yield* Users
  yield* users.decide(
    { taken: Decision.tagged({ name }, isTaken(name)) },
    ({ taken }) => taken ? new NameTaken({ name }) : { stream: user, messages: new Registered({ name }) }
  )
})

const rename = Effect.fn("rename")(function*(user: string, from: string, to: string) {
  const users = yield* Users
  yield* users.decide(
    { taken: Decision.tagged({ name: to }, isTaken(to)) },
    ({ taken }) => taken ? new NameTaken({ name: to }) : { stream: user, messages: new Renamed({ from, to }) }
  )
})

const program = Effect.gen(function*() {
  const users = yield* Users
  yield* truncate(users) // so that this example starts afresh on a database where it ran before

  const wanting = Array.from({ length: 10 }, (_, i) => Effect.result(register(`user-${i}`, "ada")))
  const answers = yield* Effect.all(wanting, { concurrency: "unbounded" })
  yield* Console.log(`${answers.filter(Result.isSuccess).length} of ${answers.length} is ada`)

  const ada = `user-${answers.findIndex(Result.isSuccess)}`
  yield* rename(ada, "ada", "countess")
  yield* register("user-10", "ada")
  yield* rename(ada, "countess", "ada").pipe(
    Effect.catchTag("NameTaken", ({ name }) => Console.log(`${name} is taken`))
  )
})

await program.pipe(Effect.provide(Layer.provide(Users.layer, layerDatabase())), Effect.runPromise)
