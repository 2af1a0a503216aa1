/** Folds: their laws, as tests, and that each of them bites; the bounds of snapshots. */
import { assert, describe, it } from "@effect/vitest"
import { Option, Result, Schema } from "effect"
import { Decider, Fold, InvalidArgumentError, Message, MessageStore } from "effect-message-store"
import { FoldLaws } from "effect-message-store/testing"
import { changesNothing, isDetermined, survivesSnapshots } from "../src/testing/FoldLaws.ts"

class Added extends Schema.TaggedClass<Added>()("Added", {
  ...Message.fields,
  item: Schema.String,
  by: Schema.Struct({ names: Schema.Array(Schema.String) })
}) {}
class Counted extends Schema.TaggedClass<Counted>()("Counted", { ...Message.fields, count: Schema.BigInt }) {}

const Event = Schema.Union([Added, Counted])
type Event = typeof Event.Type

class State extends Schema.Class<State>("test/folds/State")({
  items: Schema.Array(Schema.String),
  counts: Schema.ReadonlyMap(Schema.String, Schema.BigInt),
  at: Schema.Option(Schema.DateTimeUtc)
}) {}

const lawful = Fold.withSnapshot(
  Fold.make<Event>()({
    initial: new State({ items: [], counts: new Map(), at: Option.none() }),
    Added: (state, { item, occurredAt }) =>
      new State({ ...state, items: [...state.items, item], at: Option.some(occurredAt) }),
    Counted: (state, { count, messageId }) =>
      new State({ ...state, counts: new Map([...state.counts, [messageId, count]]) })
  }),
  { name: "state", schema: State }
)

FoldLaws.suite("a state that is a class", lawful, Event)
FoldLaws.suite("a decider", Decider.make(lawful, (_: "add") => []), Event)
FoldLaws.suite("a fold without snapshots", { initial: 0, evolve: (sum: number, _: Event) => sum + 1 }, Event)

const added = (item: string) => new Added({ item, by: { names: ["Ada"] } })
const messages: ReadonlyArray<Event> = [added("a"), new Counted({ count: 1n }), added("b"), new Counted({ count: 2n })]

describe("the laws of folds", () => {
  const items = (evolve: (sofar: Array<string>, message: Event) => Array<string>) => ({
    initial: [] as Array<string>,
    evolve
  })
  const map = (evolve: (sofar: Map<string, number>) => Map<string, number>) => ({
    initial: new Map([["a", 1]]),
    evolve
  })

  it("find what changes a state or a message", () => {
    for (
      const found of [
        changesNothing(items((sofar, message) => (sofar.push(message._tag), sofar)), messages),
        changesNothing(items((sofar, message) => (sofar.length === 0 ? [message._tag] : sofar.splice(0))), messages),
        changesNothing(map((sofar) => sofar.set("b", 1)), messages),
        changesNothing(map((sofar) => (sofar.delete("a"), sofar)), messages),
        changesNothing(
          items((sofar, message) => {
            if (message._tag === "Added") (message.by.names as Array<string>).push("Grace")
            return sofar
          }),
          messages
        ),
        changesNothing(
          {
            initial: new State({ ...lawful.initial }),
            evolve: (state: State, _: Event) => Object.assign(state, { items: ["x"] })
          },
          messages
        )
      ].entries()
    ) assert.include(found[1] ?? "nothing", "it fails on a frozen state", `${found[0]}`)
  })

  it("find what gives different states", () => {
    let calls = 0
    assert.strictEqual(
      isDetermined({ initial: 0, evolve: (sum: number, _: Event) => sum + ++calls }, messages),
      "10, and then 26"
    )
  })

  it("find what does not survive a snapshot", () => {
    const kept = <S>(initial: S, schema: Schema.Codec<S, unknown>, evolve: (state: S, message: Event) => S) =>
      survivesSnapshots(Fold.withSnapshot({ initial, evolve }, { name: "kept", schema }), messages)
    const more = (state: { readonly n: number; readonly seen?: boolean }) => ({
      n: state.seen ? state.n + 1 : 0,
      seen: true
    })
    // What the schema does not have is lost.
    assert.strictEqual(
      kept({ n: 0 }, Schema.Struct({ n: Schema.Number }), more),
      "kept behind 1 messages it comes to {\"n\":2,\"seen\":true}, and not to {\"n\":3,\"seen\":true}"
    )
    assert.include(
      kept(0, Schema.Number.check(Schema.isLessThan(3)), (n) => n + 1),
      "behind 3 messages the state cannot be kept"
    )
    assert.isUndefined(kept(0, Schema.Number, (n) => n + 1))
  })
})

describe("snapshots of folds", () => {
  const refused = (snapshot: Partial<Fold.SnapshotOptions<number>>) => {
    const fold = { initial: 0, evolve: (n: number) => n + 1 }
    const made = Result.try(() => Fold.withSnapshot(fold, { name: "n", schema: Schema.Number, ...snapshot }))
    return Result.isFailure(made) && made.failure instanceof InvalidArgumentError
  }

  it("have bounds", () => {
    for (const name of ["", "\0", "\ud800", "x".repeat(256)]) assert.isTrue(refused({ name }), name)
    for (const bad of [0, -1, 1.5, Number.NaN, Infinity]) {
      assert.isTrue(refused({ every: bad }))
      assert.isTrue(refused({ version: bad }))
    }
    assert.isFalse(refused({ name: "🙂".repeat(255), every: 1, version: 1 }))
  })

  it("are remembered as many as is said, 0 or more", () => {
    for (const cachedStates of [-1, 1.5, Number.NaN, Infinity]) {
      assert.throws(
        () => MessageStore.Service<unknown>()("test/folds/Store", { name: "folds", schema: Event, cachedStates }),
        InvalidArgumentError
      )
    }
  })
})
