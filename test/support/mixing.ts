/**
 * Sequences of everything that is done with a store, and what comes of them, told without what may differ between backends:
 * global positions by their order, no times, no trace contexts.
 */
import { Array as Arr, Effect, Result, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore, type Reader } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"

class Plain extends Schema.TaggedClass<Plain>()("Plain", { ...Message.fields, number: Schema.Natural }) {}
class One extends Schema.TaggedClass<One>()("One", {
  ...Message.fields,
  number: Schema.Natural,
  a: Message.tag("a", Schema.String)
}) {}
class Many extends Schema.TaggedClass<Many>()("Many", {
  ...Message.fields,
  number: Schema.Natural,
  a: Schema.optionalKey(Message.tag("a", Schema.String)),
  b: Message.tag("b", Schema.Array(Schema.String))
}) {}

const MixedEvent = Schema.Union([Plain, One, Many])
export type MixedEvent = typeof MixedEvent.Type
export type Mixed = MessageStore.MessageStore<MixedEvent>

/** The store of this name: each has tables of its own. */
export const storeNamed = (name: string) => {
  class Store extends MessageStore.Service<Store>()(`test/Mixed/${name}`, { name, schema: MixedEvent }) {}
  return Store
}

const Whole = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Few = <S extends Schema.Constraint>(schema: S, minimum: number, maximum: number) =>
  Schema.Array(schema).check(Schema.isMinLength(minimum), Schema.isMaxLength(maximum))

// Small pools, so that steps meet each other.
const StreamNumber = Whole(3)
const Value = Whole(2)
const Numbers = Few(Whole(40), 1, 3)
const Expected = Schema.Literals(["any", "any", "any", "exists", 0, 1, 2, 3])
/** By which fold; those that are kept have snapshots. */
const Folded = Schema.Literals(["all", "types", "all, kept", "types, kept"])
const Direction = Schema.Literals(["forward", "backward"])
const Limit = Schema.Literals(["all", "all", 0, 1, 2, 4])

/** All tags of the names, in their order, with these values. A type that has none of them is refused. */
const Query = Schema.Struct({
  names: Schema.Literals(["a", "a", "a", "a", "a", "a", "a", "b", "b", "b", "b", "b", "b", "ab", "ab", "ba", "ba", ""]),
  a: Value,
  b: Value
})
const Types = Schema.Literals(["any", "any", "any", "any", "any", "Many", "Many", "Many", "One", "both"])

const Bounds = Schema.Struct({
  /** Indexes of positions that were given out before. */
  from: Schema.Literals(["none", "none", 0, 1, 3]),
  to: Schema.Literals(["none", "none", "none", 1, 2, 5]),
  direction: Direction,
  limit: Limit,
  tags: Schema.Boolean
})
const Part = Schema.Struct({ stream: StreamNumber, numbers: Numbers, expected: Expected })
const Base = Schema.Union([
  Schema.TaggedStruct("write", { part: Part }),
  Schema.TaggedStruct("write", { part: Part }),
  Schema.TaggedStruct("writeAll", { parts: Few(Part, 1, 4) }),
  Schema.TaggedStruct("synchronize", {
    stream: StreamNumber,
    numbers: Few(Whole(40), 0, 4),
    behindStored: Schema.Boolean,
    expected: Schema.Literals(["any", "any", 0, 1, 2])
  }),
  Schema.TaggedStruct("update", {
    stream: StreamNumber,
    numbers: Few(Whole(40), 0, 2),
    most: Whole(6),
    by: Folded
  }),
  Schema.TaggedStruct("decide", {
    streams: Few(StreamNumber, 0, 2),
    by: Folded,
    queries: Few(Schema.Struct({ any: Few(Query, 1, 2), types: Types, by: Folded }), 0, 3),
    most: Whole(8),
    writes: Few(Schema.Struct({ stream: StreamNumber, numbers: Few(Whole(40), 0, 2) }), 0, 3)
  }),
  Schema.TaggedStruct("decide", {
    streams: Few(StreamNumber, 0, 1),
    by: Folded,
    queries: Few(Schema.Struct({ any: Few(Query, 1, 1), types: Types, by: Folded }), 1, 2),
    most: Whole(8),
    writes: Few(Schema.Struct({ stream: StreamNumber, numbers: Numbers }), 1, 1)
  }),
  Schema.TaggedStruct("read", { stream: StreamNumber, from: Whole(3), to: Whole(6), bounds: Bounds }),
  Schema.TaggedStruct("readWildcard", { pattern: Schema.Literals(["%", "%", "_", "1%"]), bounds: Bounds }),
  Schema.TaggedStruct("readTagged", { any: Few(Query, 1, 3), types: Types, bounds: Bounds }),
  Schema.TaggedStruct("byIds", { numbers: Numbers }),
  Schema.TaggedStruct("head", { stream: StreamNumber })
])
const Delete = Schema.TaggedStruct("delete", {
  stream: StreamNumber,
  to: Schema.Literals(["all", "all", 0, 1, 2, 3, 5]),
  expected: Expected
})
/** Of messages that the streams begin with, mostly. */
const Redact = Schema.TaggedStruct("redact", {
  numbers: Few(Whole(8), 1, 2),
  how: Schema.Literals([
    "content",
    "content",
    "content",
    "to nothing",
    "fewer tags",
    "more tags",
    "as it is",
    "other id"
  ])
})
const Taking = Schema.Union([Base, Base, Delete, Redact])

type Simple = typeof Base.Type | typeof Delete.Type | typeof Redact.Type

const sequenceOf = <S extends Schema.Codec<Simple>>(base: S) => {
  const inner = Schema.TaggedStruct("transaction", { steps: Few(base, 1, 2), commits: Schema.Boolean })
  const step = Schema.Union([
    base,
    base,
    Schema.TaggedStruct("transaction", {
      steps: Few(Schema.Union([base, base, inner]), 1, 3),
      commits: Schema.Boolean
    }),
    Schema.Union([base, base, base, base, Schema.TaggedStruct("truncate", {})])
  ])
  return Schema.Struct({ begins: Few(Whole(4), 4, 4), steps: Few(step, 1, 6) })
}

/** How many messages each of the streams begins with, and the steps. */
export const Sequence = sequenceOf(Base)
/** The same, in which much is deleted and redacted. */
export const ForgettingSequence = sequenceOf(Taking)

type Step = Simple | typeof ForgettingSequence.Type["steps"][number] | {
  readonly _tag: "transaction"
  readonly steps: ReadonlyArray<Simple>
  readonly commits: boolean
}

/** What a sequence works with; of no other one. */
export interface Material {
  readonly prefix: string
  readonly messages: ReadonlyArray<MixedEvent>
}

/** The values of tags. */
const texts = ["x", "y \"quoted\": é", "z\\{}"]

export const material = (): Material => {
  const prefix = globalThis.crypto.randomUUID()
  const a = (i: number) => `${prefix} ${texts[i % 3] ?? ""}`
  return {
    prefix,
    messages: Arr.makeBy(41, (number) =>
      number % 4 === 0
        ? new Plain({ number })
        : number % 4 < 3
        ? new One({ number, a: a(number) })
        : new Many({ number, b: [a(number), a(number >> 2)], ...number % 3 === 0 ? {} : { a: a(number >> 1) } }))
  }
}

/** The numbers of the messages, in their order. */
const all: Fold.Fold<ReadonlyArray<number>, MixedEvent> = {
  initial: [],
  evolve: (sofar, { number }) => [...sofar, number]
}
const ofTypes = Fold.make<MixedEvent>()({
  initial: [] as ReadonlyArray<number>,
  One: (sofar, { number }) => [...sofar, number],
  Many: (sofar, { number }) => [...sofar, number]
})

const Numbered = Schema.Array(Schema.Number)
const folds: Readonly<Record<typeof Folded.Type, Fold.Fold<ReadonlyArray<number>, MixedEvent>>> = {
  all,
  types: ofTypes,
  "all, kept": Fold.withSnapshot(all, { name: "all", schema: Numbered, every: 2 }),
  "types, kept": Fold.withSnapshot(ofTypes, { name: "types", schema: Numbered, every: 3 })
}

class TooMany extends Schema.TaggedError<TooMany>()("TooMany", { seen: Schema.Unknown }) {}
class RolledBack extends Schema.TaggedError<RolledBack>()("RolledBack", { inside: Schema.Unknown }) {}

/** A global position, until all are known. */
class Position {
  readonly position: number
  constructor(position: number) {
    this.position = position
  }
}

/** What is left of a message; its number tells that it was redacted. */
const redacted = (stored: MixedEvent, how: typeof Redact.Type["how"]): MixedEvent => {
  const { messageId, occurredAt } = stored
  const number = stored.number < 100 ? stored.number + 100 : stored.number
  switch (how) {
    case "as it is":
      return stored
    case "other id":
      return new Plain({ number })
    case "content":
      return stored._tag === "Plain"
        ? new Plain({ ...stored, number })
        : stored._tag === "One"
        ? new One({ ...stored, number })
        : new Many({ ...stored, number })
    case "to nothing":
      return new Plain({ messageId, occurredAt, number })
    case "fewer tags":
      return stored._tag === "Many" ? new Many({ messageId, occurredAt, number, b: stored.b.slice(0, 1) }) : stored
    case "more tags":
      return new Many({ messageId, occurredAt, number, b: ["another"] })
  }
}

/** Runs the steps one after the other, and tells what came of each. */
export const perform = Effect.fnUntraced(function*(
  store: Mixed,
  { begins, steps }: typeof Sequence.Type | typeof ForgettingSequence.Type,
  { messages, prefix }: Material,
  truncateStore: Effect.Effect<void, unknown> = truncate(store)
) {
  const positions: Array<number> = []
  const streamOf = (number: number) => `${prefix}${number}`
  const message = (number: number): MixedEvent => messages[number] as MixedEvent
  const given = (numbers: ReadonlyArray<number>) =>
    numbers.map(message) as never as Arr.NonEmptyReadonlyArray<MixedEvent>
  const expectedOf = (expected: typeof Expected.Type) => expected === "any" ? {} : { expectedVersion: expected }
  const partOf = ({ expected, numbers, stream }: typeof Part.Type) => ({
    stream: streamOf(stream),
    messages: given(numbers),
    ...expectedOf(expected)
  })
  const queriesOf = (any: ReadonlyArray<typeof Query.Type>) =>
    any.map(({ names, ...values }): Message.Tags =>
      Object.fromEntries(
        Array.from(names, (name) => [name, `${prefix} ${texts[values[name as "a" | "b"]] ?? ""}`])
      )
    ) as never as Arr.NonEmptyReadonlyArray<Message.Tags>
  const typesOf = (types: typeof Types.Type) =>
    types === "any" ? {} : { types: types === "both" ? ["One", "Many"] as const : [types] as const }
  const optionsOf = ({ direction, from, limit, tags, to }: typeof Bounds.Type): Reader.ReadWildcardOptions => ({
    direction,
    tags,
    ...from === "none" ? {} : { fromGlobalPosition: positions[from] ?? 0 },
    ...to === "none" ? {} : { toGlobalPosition: positions[to] ?? 0 },
    ...limit === "all" ? {} : { limit }
  })

  const show = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(show)
    if (typeof value !== "object" || value === null) return value
    const { addedAt: _, cause: __, globalPosition, message: content, metadata, ...rest } = value as Readonly<
      Record<string, unknown>
    >
    if (typeof globalPosition === "number" && !positions.includes(globalPosition)) positions.push(globalPosition)
    return {
      ...rest,
      ...content === undefined ? {} : { message: (content as MixedEvent).number },
      ...typeof globalPosition === "number" ? { globalPosition: new Position(globalPosition) } : {},
      ...metadata === undefined
        ? {}
        : { metadata: Object.keys(metadata as object).filter((key) => key !== "traceparent").toSorted() }
    }
  }
  const told = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    success: (value: A) => unknown = show
  ): Effect.Effect<unknown, never, R> =>
    Effect.map(
      Effect.result(effect),
      (result) => Result.isSuccess(result) ? success(result.success) : { fails: show({ ...Object(result.failure) }) }
    )
  const collected = <A, E, R>(read: Stream.Stream<A, E, R>) => told(Stream.runCollect(read))

  const run = (step: Step): Effect.Effect<unknown> => {
    switch (step._tag) {
      case "write": {
        const { messages: written, stream, ...options } = partOf(step.part)
        return told(store.write(stream, written, { ...options, metadata: { correlationId: "c" } }))
      }
      case "writeAll":
        return told(store.writeAll(step.parts.map(partOf)))
      case "synchronize":
        return told(Effect.gen(function*() {
          const stored = step.behindStored
            ? (yield* Stream.runCollect(store.read(streamOf(step.stream)))).map((one) => one.message)
            : []
          return yield* store.synchronize(
            streamOf(step.stream),
            [...stored, ...step.numbers.map(message)],
            expectedOf(step.expected)
          )
        }))
      case "update":
        return told(
          store.update(streamOf(step.stream), folds[step.by], (seen, version) =>
            seen.length > step.most
              ? Effect.fail(new TooMany({ seen: [seen, version] }))
              : Effect.succeed(step.numbers.map(message)))
        )
      case "decide": {
        const sources = Object.fromEntries<Decision.Source<ReadonlyArray<number>, MixedEvent>>([
          ...step.streams.map((stream, i) => [`s${i}`, Decision.stream(streamOf(stream), folds[step.by])] as const),
          ...step.queries.map(({ any, by, types }, i) =>
            [`t${i}`, Decision.tagged(queriesOf(any), folds[by], typesOf(types))] as const
          )
        ])
        const seen: Array<unknown> = []
        const decided = store.decide(sources, (states) => {
          seen.push(states)
          return Object.values(states).flat().length > step.most
            ? Effect.fail(new TooMany({ seen: states }))
            : Effect.succeed(step.writes.map(({ numbers, stream }) => ({
              stream: streamOf(stream),
              messages: numbers.map(message)
            })))
        })
        return Effect.map(told(decided), (outcome) => ({ seen, outcome }))
      }
      case "read":
        return collected(store.read(streamOf(step.stream), {
          fromVersion: step.from + 1,
          toVersion: step.to,
          ...optionsOf({ ...step.bounds, from: "none", to: "none" })
        }))
      case "readWildcard":
        return Effect.scoped(
          Effect.flatMap(
            Effect.orDie(store.reader),
            ({ readWildcard }) => collected(readWildcard(`${prefix}${step.pattern}`, optionsOf(step.bounds)))
          )
        )
      case "readTagged":
        return collected(store.readTagged(queriesOf(step.any), {
          ...optionsOf(step.bounds),
          ...typesOf(step.types)
        }))
      case "byIds":
        return told(
          Effect.scoped(Effect.flatMap(store.reader, ({ getMessagesByIds }) =>
            getMessagesByIds(
              given(step.numbers).map(({ messageId }) => messageId),
              { tags: true }
            )))
        )
      case "head":
        return told(store.head(streamOf(step.stream)))
      case "delete":
        return told(store.delete(streamOf(step.stream), {
          ...step.to === "all" ? {} : { toVersion: step.to },
          ...expectedOf(step.expected)
        }))
      case "redact":
        return told(store.redact(
          given(step.numbers).map(({ messageId }) => messageId),
          (stored) => redacted(stored, step.how)
        ))
      case "truncate":
        return told(truncateStore)
      case "transaction":
        return told(
          store.withTransaction(Effect.gen(function*() {
            const inside = yield* Effect.forEach(step.steps, run)
            return step.commits ? inside : yield* new RolledBack({ inside })
          })),
          (inside) => ({ inside }) // told already
        )
    }
  }

  let begun = 0
  const beginning = begins.flatMap((count, stream) =>
    count === 0 ? [] : [{ stream: streamOf(stream), messages: given(Arr.makeBy(count, () => begun++)) }]
  )
  show(yield* Effect.orDie(store.writeAll(beginning)))
  const outcomes = yield* Effect.forEach(steps, run)
  const left = yield* Effect.scoped(
    Effect.flatMap(
      Effect.orDie(store.reader),
      ({ readWildcard }) => collected(readWildcard(`${prefix}%`, { tags: true }))
    )
  )
  const order = positions.toSorted((x, y) => x - y)
  const ranked = (value: unknown): unknown =>
    value instanceof Position
      ? order.indexOf(value.position)
      : Array.isArray(value)
      ? value.map(ranked)
      : typeof value === "object" && value !== null
      ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, ranked(one)]))
      : value
  return { outcomes: steps.map((step, i) => ({ step: step._tag, outcome: ranked(outcomes[i]) })), left: ranked(left) }
})
