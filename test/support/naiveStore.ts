/**
 * A store that is as simple as can be: an array of what is stored, copied by each transaction. It says what the others should do,
 * one call after the other: nothing is remembered, nothing happens at the same time.
 */
import { Array as Arr, DateTime, Effect, Result, Stream } from "effect"
import {
  type Decision,
  DuplicateMessageError,
  Fold,
  InvalidArgumentError,
  type Message,
  MessageIdMismatchError,
  MessageNotFoundError,
  type MessageStore,
  OptimisticConcurrencyError,
  type Reader
} from "effect-message-store"
import type { Mixed, MixedEvent } from "./mixing.ts"

interface Stored extends Message.TaggedMessage<MixedEvent> {}

const tagsOf = (message: MixedEvent): ReadonlyArray<string> =>
  message._tag === "Plain" ? [] : Arr.dedupe([
    ..."a" in message && message.a !== undefined ? [`a:${message.a}`] : [],
    ..."b" in message ? message.b.map((b) => `b:${b}`) : []
  ])

const typesWith: Readonly<Record<string, ReadonlyArray<string>>> = { One: ["a"], Many: ["a", "b"], Plain: [] }

/** Of one stored message, as it is read. */
const shown = (stored: Stored, withTags: boolean | undefined): Message.StoredMessage<MixedEvent> => {
  const { tags, ...rest } = stored
  return withTags === true ? { ...rest, tags } as Stored : rest
}

/** Makes one, and a way to empty it. Of the operations those that sequences are made of. */
export const makeNaive = () => {
  let all: ReadonlyArray<Stored> = []
  let last = 0

  const of = (stream: string) => all.filter((one) => one.stream === stream).toSorted((a, b) => a.version - b.version)
  const head = (stream: string): Message.StreamHead => {
    const end = of(stream).at(-1)
    return { stream, version: end?.version ?? 0, globalPosition: end?.globalPosition }
  }
  const isExpected = (version: number, expected: Message.ExpectedVersion | undefined) =>
    expected === undefined || (expected === "exists" ? version > 0 : expected === version)

  /** All or nothing. */
  const atomically = <A, E>(run: () => Result.Result<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const before = all
      const result = run()
      if (Result.isFailure(result)) all = before
      return Effect.fromResult(result)
    })

  const append = (
    { expectedVersion, messages, metadata, stream }: MessageStore.StreamWrite<MixedEvent>
  ): Result.Result<Message.MessagePosition, MessageStore.WriteError> => {
    const { version: before } = head(stream)
    if (!isExpected(before, expectedVersion)) {
      return Result.fail(
        new OptimisticConcurrencyError({ stream, expectedVersion: expectedVersion ?? 0, actualVersion: before })
      )
    }
    for (const [i, message] of Arr.ensure(messages).entries()) {
      const { messageId } = message
      if (all.some((one) => one.messageId === messageId)) return Result.fail(new DuplicateMessageError({ messageId }))
      const place = { stream, version: before + i + 1, globalPosition: ++last, addedAt: DateTime.makeUnsafe(0) }
      all = [...all, { ...place, messageId, message, metadata: metadata ?? {}, tags: tagsOf(message) }]
    }
    return Result.succeed({ stream, version: head(stream).version, globalPosition: last })
  }

  const writeAll = (writes: ReadonlyArray<MessageStore.StreamWrite<MixedEvent>>) =>
    atomically(() => {
      for (const { messages } of writes) {
        const ids = Arr.ensure(messages).map(({ messageId }) => messageId)
        const twice = ids.find((messageId, i) => ids.indexOf(messageId) < i)
        if (twice !== undefined) return Result.fail(new DuplicateMessageError({ messageId: twice }))
      }
      return Result.all(writes.map(append))
    })

  const range = <A>(found: ReadonlyArray<A>, { direction, limit }: Reader.ReadWildcardOptions): ReadonlyArray<A> =>
    (direction === "backward" ? found.toReversed() : found).slice(0, limit)

  const byPosition = (
    matches: (one: Stored) => boolean,
    options: Reader.ReadWildcardOptions = {}
  ) => {
    const { fromGlobalPosition = 0, tags, toGlobalPosition = Infinity } = options
    const found = all.filter((one) =>
      matches(one) && one.globalPosition >= fromGlobalPosition && one.globalPosition <= toGlobalPosition
    )
    return range(found.toSorted((a, b) => a.globalPosition - b.globalPosition), options).map((one) => shown(one, tags))
  }

  /** Whether a message is asked for; or why nobody can ask so. */
  const asked = (
    given: Message.Tags | ReadonlyArray<Message.Tags>,
    types: ReadonlyArray<string> | undefined
  ): Result.Result<(one: Stored) => boolean, InvalidArgumentError> => {
    const queries = Arr.ensure(given) as ReadonlyArray<Message.Tags>
    const candidates = types ?? ["One", "Many"]
    const has = (type: string, names: ReadonlyArray<string>) => names.every((name) => typesWith[type]?.includes(name))
    const without = types?.find((type) => !queries.some((one) => has(type, Object.keys(one))))
    if (without !== undefined) return Result.fail(new InvalidArgumentError({ argument: "types", reason: "" }))
    for (const query of queries) {
      const names = Object.keys(query)
      if (names.length === 0 || !candidates.some((type) => has(type, names))) {
        return Result.fail(new InvalidArgumentError({ argument: "tags", reason: "" }))
      }
    }
    return Result.succeed((one) =>
      (types === undefined || types.includes(one.message._tag)) &&
      queries.some((query) => Object.entries(query).every(([name, value]) => one.tags.includes(`${name}:${value}`)))
    )
  }

  const store: Pick<
    Mixed,
    | "write"
    | "writeAll"
    | "synchronize"
    | "update"
    | "decide"
    | "read"
    | "readTagged"
    | "reader"
    | "head"
    | "delete"
    | "redact"
    | "withTransaction"
  > = {
    head: (stream) => Effect.sync(() => head(stream)),
    write: (stream, messages, options) =>
      Effect.map(writeAll([{ ...options, stream, messages }]), ([at]) => at as Message.MessagePosition),
    writeAll,
    synchronize: (stream, messages, options) =>
      Effect.suspend((): Effect.Effect<MessageStore.Appended, MessageStore.WriteError | MessageIdMismatchError> => {
        const { version } = head(stream)
        for (const stored of of(stream)) {
          const givenMessageId = messages[stored.version - 1]?.messageId
          if (givenMessageId === undefined) break
          if (givenMessageId !== stored.messageId) {
            const place = { stream, version: stored.version, storedMessageId: stored.messageId }
            return Effect.fail(new MessageIdMismatchError({ ...place, givenMessageId }))
          }
        }
        const missing = messages.slice(version)
        if (!Arr.isReadonlyArrayNonEmpty(missing)) return Effect.succeed({ ...head(stream), appended: 0 })
        const expected = options?.expectedVersion
        if (expected !== undefined && !isExpected(version, expected)) {
          return Effect.fail(
            new OptimisticConcurrencyError({ stream, expectedVersion: expected, actualVersion: version })
          )
        }
        return Effect.map(
          writeAll([{ ...options, stream, messages: missing }]),
          () => ({ ...head(stream), appended: missing.length })
        )
      }),
    update: ((stream, fold, decide) =>
      Effect.suspend(() => {
        const state = of(stream).reduce((sofar, { message }) => fold.evolve(sofar, message), fold.initial)
        const answer = decide(state, head(stream).version) as unknown as Effect.Effect<ReadonlyArray<MixedEvent>>
        return Effect.flatMap(answer, (messages) =>
          Arr.isReadonlyArrayNonEmpty(messages)
            ? Effect.map(
              writeAll([{ stream, messages }]),
              () => ({ ...head(stream), appended: messages.length })
            )
            : Effect.succeed({ ...head(stream), appended: 0 }))
      })) as Mixed["update"],
    decide: ((
      sources: Readonly<Record<string, Decision.Source<unknown, MixedEvent>>>,
      decide: (states: unknown) => unknown
    ) =>
      Effect.suspend(() => {
        if (Object.keys(sources).length === 0) {
          return Effect.fail(new InvalidArgumentError({ argument: "sources", reason: "" }))
        }
        const states: Record<string, unknown> = {}
        const ofSources = Object.entries(sources).map(([name, source]) =>
          source._tag === "Stream"
            ? Result.succeed([name, source, (one: Stored) => one.stream === source.stream] as const)
            : Result.map(
              asked(source.tags, source.types ?? Fold.typesOf(source.fold)),
              (matches) => [name, source, matches] as const
            )
        )
        const checked = Result.all(ofSources)
        if (Result.isFailure(checked)) return Effect.fail(checked.failure)
        for (const [name, { fold }, matches] of checked.success) {
          states[name] = all.filter(matches).toSorted((a, b) => a.globalPosition - b.globalPosition)
            .reduce((sofar, { message }) => fold.evolve(sofar, message), fold.initial)
        }
        const answer = decide(states) as Effect.Effect<ReadonlyArray<MessageStore.StreamWrite<MixedEvent>>>
        return Effect.flatMap(
          answer,
          (writes) => writeAll(writes.filter(({ messages }) => Arr.ensure(messages).length > 0))
        )
      })) as never as Mixed["decide"],
    read:
      ((stream: string, { fromVersion = 1, tags, toVersion = Infinity, ...options }: Reader.ReadOptions = {}) =>
        Stream.fromIterableEffect(
          Effect.sync(() =>
            range(of(stream).filter(({ version }) => version >= fromVersion && version <= toVersion), options)
              .map((one) => shown(one, tags))
          )
        )) as never as Mixed["read"],
    readTagged: ((tags, options = {}) =>
      Stream.fromIterableEffect(
        Effect.suspend(() =>
          Effect.fromResult(Result.map(asked(tags, options.types), (matches) => byPosition(matches, options)))
        )
      )) as Mixed["readTagged"],
    reader: Effect.sync(() => ({
      readWildcard: (pattern: string, options?: Reader.ReadWildcardOptions) => {
        const matches = new RegExp(
          `^${pattern.replaceAll("%", ".*").replaceAll("_", ".")}$`,
          "u"
        )
        return Stream.fromIterableEffect(Effect.sync(() => byPosition(({ stream }) => matches.test(stream), options)))
      },
      getMessagesByIds: (ids: ReadonlyArray<string>, options?: Reader.TagsOption) =>
        Effect.sync(() =>
          ids.flatMap((id) => all.filter((one) => one.messageId === id).map((one) => shown(one, options?.tags)))
        )
    })) as never as Mixed["reader"],
    delete: (stream, { expectedVersion, toVersion = Infinity } = {}) =>
      Effect.suspend(() => {
        const { version } = head(stream)
        if (!isExpected(version, expectedVersion)) {
          return Effect.fail(
            new OptimisticConcurrencyError({ stream, expectedVersion: expectedVersion ?? 0, actualVersion: version })
          )
        }
        const left = all.filter((one) => one.stream !== stream || one.version > toVersion)
        const deleted = all.length - left.length
        all = left
        return Effect.succeed({ ...head(stream), deleted })
      }),
    redact: (ids, change) =>
      atomically((): Result.Result<number, MessageNotFoundError | InvalidArgumentError> => {
        let count = 0
        const wanted = Arr.ensure(ids)
        const missing = wanted.find((id) => !all.some(({ messageId }) => messageId === id))
        if (missing !== undefined) return Result.fail(new MessageNotFoundError({ messageId: missing }))
        for (const id of Arr.dedupe(wanted)) {
          const stored = all.find(({ messageId }) => messageId === id) as Stored
          const message = change(stored.message, stored)
          const tags = tagsOf(message)
          if (message.messageId !== id || tags.some((tag) => !tagsOf(stored.message).includes(tag))) {
            return Result.fail(new InvalidArgumentError({ argument: "change", reason: "" }))
          }
          if (JSON.stringify(message) === JSON.stringify(stored.message)) continue
          count++
          const metadata = { ...stored.metadata, redactedAt: "now" }
          all = all.map((one) => one === stored ? { ...stored, message, metadata, tags } : one)
        }
        return Result.succeed(count)
      }),
    withTransaction: (effect) =>
      Effect.suspend(() => {
        const before = all
        return Effect.onError(effect, () => Effect.sync(() => all = before))
      })
  }

  return {
    store: store as Mixed,
    truncate: Effect.sync(() => {
      all = []
    })
  }
}
