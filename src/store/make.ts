/** Puts a store together: how it writes, decides and reads. What is promised stands in `MessageStore`. */
import { Array as Arr, Context, Effect, Result, Tracer } from "effect"
import * as AggregatedStream from "../AggregatedStream.ts"
import { Handled } from "../internal/handled.ts"
import * as Telemetry from "../internal/telemetry.ts"
import { type MessagePosition, toTraceparent } from "../Message.ts"
import * as Reader from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { Storage } from "../Storage.ts"
import { make as makeDecide } from "./decide.ts"
import { declare } from "./declarations.ts"
import { make as makeDeleting } from "./deleting.ts"
import {
  type Accessors,
  type Invalid,
  type Items,
  makeItems,
  type OneOrMore,
  type StreamWrite,
  toPositions,
  type WriteOptions
} from "./encode.ts"
import type { EncodeParts, Part } from "./evolving.ts"
import { make as makeForget, type Shredding } from "./forget.ts"
import { make as makeSchedule } from "./schedule.ts"
import * as Snapshots from "./snapshots.ts"
import { makeReadSources } from "./sources.ts"
import { make as makeSynchronize } from "./synchronize.ts"
import { make as makeTagging } from "./tagging.ts"
import * as Together from "./together.ts"
import { make as makeUpdate, makeReadStream, type WriteError } from "./update.ts"

/** As many positions as writes: of one write, one. */
const firstPosition = (positions: ReadonlyArray<MessagePosition>): MessagePosition => positions[0] as MessagePosition

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>,
  accessors: Accessors<A>,
  name: string,
  cachedStates: number,
  shredding: Shredding<A> | undefined
) =>
  Effect.flatMap(
    Effect.all([
      Snapshots.make(storage, name, cachedStates, shredding?.freshness),
      declare(storage, name, codec.tags, true)
    ]),
    ([snapshots, { knownTags, requireTags }]) => {
      const operation = Telemetry.operationsOf(name)
      const reader = Reader.make(storage, codec, requireTags)
      const toItems = makeItems(codec, accessors, knownTags)

      // Every single write comes through here: hence no generator.
      const encoded = <B, E>(
        writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>,
        use: (items: Items) => Effect.Effect<B, E>
      ): Effect.Effect<B, E | Invalid> =>
        Effect.withFiber<B, E | Invalid>((fiber) => {
          const items = toItems(
            writes,
            toTraceparent(Context.getOption(fiber.context, Tracer.ParentSpan)),
            fiber.getRef(Handled)
          )
          return Result.isFailure(items) ? Effect.fail(items.failure) : use(items.success)
        })

      const append = (
        writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>,
        sending?: Telemetry.Sending
      ): Effect.Effect<ReadonlyArray<MessagePosition>, WriteError> =>
        encoded(writes, (items) => {
          if (sending !== undefined) sending.items = items
          return Effect.flatMap(
            storage.append(items, { atomic: true }),
            (outcomes) => Effect.fromResult(toPositions(items, outcomes))
          )
        })

      const appendOne = (one: StreamWrite<A>, sending?: Telemetry.Sending) =>
        Effect.map(append([one], sending), firstPosition)

      // What Effect.fn does, without the stack trace that it takes of each call.
      const writing = operation("write", "send")
      const write = (stream: string, messages: OneOrMore<A>, options?: WriteOptions) =>
        writing.run((sending) => appendOne({ ...options, stream, messages }, sending))

      const writingAll = operation("writeAll", "send")
      const writeAll = Effect.fn(writingAll.spanName, writingAll.spanOptions)(
        function*(writes: ReadonlyArray<StreamWrite<A>>) {
          if (!Arr.isReadonlyArrayNonEmpty(writes)) return []
          const sending: Telemetry.Sending = { items: [] }
          return yield* writingAll.observe(append(writes, sending), sending)
        }
      )

      const encodeParts: EncodeParts<A> = (writes) =>
        encoded(writes, (items) =>
          Effect.succeed(Arr.zipWith(items, writes, (item, { messages }): Part<A> => ({
            item,
            messages: Arr.ensure(messages) as ReadonlyArray<A>
          }))))
      const readSources = makeReadSources<A>(storage, makeReadStream<A>(reader), reader.readQueries)

      return Effect.map(Together.make<A>(storage, name, readSources, shredding?.freshness), (decideOn) => ({
        name,
        write,
        writeAll,
        synchronize: makeSynchronize<A>(storage, operation, accessors, appendOne),
        update: makeUpdate<A>(decideOn, operation, snapshots, encodeParts),
        decide: makeDecide<A>({ storage, operation, codec, decideOn, snapshots, requireTags, encodeParts }),
        read: reader.read,
        readTagged: reader.readTagged,
        head: reader.head,
        reader: Reader.inSnapshot(storage, codec, requireTags),
        tagging: makeTagging(storage, codec, name),
        aggregatedStream: (options: AggregatedStream.Options<A>) =>
          AggregatedStream.make(storage, codec, accessors.time, name, options),
        withTransaction: storage.withTransaction,
        ...makeSchedule<A>(storage, operation, codec, name, encoded),
        ...makeDeleting(storage, operation, codec, accessors, name),
        ...makeForget<A>(storage, operation, shredding, appendOne)
      }))
    }
  )
