/** Given, when, then for deciders: what holds passes, and what does not says what it was given. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Schema } from "effect"
import { Decider, Fold, Message } from "effect-message-store"
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

describe("a scenario fails, and says what was given, expected and got,", () => {
  const fails = (scenario: Effect.Effect<void>, ...parts: ReadonlyArray<string>) =>
    Effect.map(Effect.exit(scenario), (exit) => {
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(error, Scenario.ScenarioError)
      for (const part of parts) assert.include(error.message, part)
    })

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
