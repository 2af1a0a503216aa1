/**
 * A type that has messages already gets a tag, while processes of the build before go on writing.
 *
 *   node examples/20-tags-after-the-fact.ts
 */
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { layerDatabase } from "./database.ts"

const name = "example_members"

class JoinedBefore extends Schema.TaggedClass<JoinedBefore>()("Joined", { ...Message.fields, club: Schema.String }) {}
class LastYear extends MessageStore.Service<LastYear>()("examples/LastYear", { name, schema: JoinedBefore }) {}

class Joined extends Schema.TaggedClass<Joined>()("Joined", {
  ...Message.fields,
  club: Message.tag("club", Schema.String)
}) {}
class Members extends MessageStore.Service<Members>()("examples/Members", { name, schema: Joined }) {}

const tag = Effect.gen(function*() {
  const members = yield* Members
  yield* members.tagging().pipe(
    Stream.runForEach(({ position, upTo }) => Console.log(`tagged up to ${position} of ${upTo}`))
  )
})

const program = Effect.gen(function*() {
  const lastYear = yield* LastYear
  yield* lastYear.write("ada", new JoinedBefore({ club: "chess" }))

  yield* Effect.gen(function*() {
    const members = yield* Members
    const inChess = Effect.map(Stream.runCount(members.readTagged({ club: "chess" })), (count) => `${count} in chess`)
    yield* inChess.pipe(
      Effect.catchTag("TagsIncompleteError", ({ tags }) => Effect.succeed(`not found by ${tags.join()} yet`)),
      Effect.flatMap(Console.log)
    )
    yield* lastYear.write("grace", new JoinedBefore({ club: "chess" })) // tagged by the database
    yield* tag
    yield* members.write("radia", new Joined({ club: "chess" }))
    yield* Effect.flatMap(inChess, Console.log)
  }).pipe(Effect.provide(Members.layer))
})

await program.pipe(Effect.provide(Layer.provideMerge(LastYear.layer, layerDatabase())), Effect.runPromise)
