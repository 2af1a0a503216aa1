/** Puts a store together: how it writes, decides and reads. What is promised stands in `MessageStore`. */
import { Array as Arr, Context, Effect, Result, Tracer } from "effect"
import * as AggregatedStream from "../AggregatedStream.ts"
import { Handled } from "../internal/handled.ts"
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
      declare(storage, name, codec.tags)
    ]),
    ([snapshots, { knownTags, requireTags }]) => {
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
        writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>
      ): Effect.Effect<ReadonlyArray<MessagePosition>, WriteError> =>
        encoded(writes, (items) =>
          Effect.flatMap(
            storage.append(items, { atomic: true }),
            (outcomes) => Effect.fromResult(toPositions(items, outcomes))
          ))

      const appendOne = (one: StreamWrite<A>) => Effect.map(append([one]), firstPosition)

      // What Effect.fn does, without the stack trace that it takes of each call.
      const write = (stream: string, messages: OneOrMore<A>, options?: WriteOptions) =>
        Effect.useSpan("MessageStore.write", (span) => {
          const positions = append([{ ...options, stream, messages }])
          // One item, one position.
          return Effect.provideService(Effect.map(positions, ([at]) => at as MessagePosition), Tracer.ParentSpan, span)
        })

      const writeAll = Effect.fn("MessageStore.writeAll")(function*(writes: ReadonlyArray<StreamWrite<A>>) {
        return Arr.isReadonlyArrayNonEmpty(writes) ? yield* append(writes) : []
      })

      const encodeParts: EncodeParts<A> = (writes) =>
        encoded(writes, (items) =>
          Effect.succeed(Arr.zipWith(items, writes, (item, { messages }): Part<A> => ({
            item,
            messages: Arr.ensure(messages) as ReadonlyArray<A>
          }))))
      const readSources = makeReadSources<A>(storage, makeReadStream<A>(reader), reader.readQueries)

      return Effect.map(Together.make<A>(storage, readSources, shredding?.freshness), (decideOn) => ({
        name,
        write,
        writeAll,
        synchronize: makeSynchronize<A>(storage, accessors, appendOne),
        update: makeUpdate<A>(decideOn, snapshots, encodeParts),
        decide: makeDecide<A>(storage, codec, decideOn, snapshots, requireTags, encodeParts),
        read: reader.read,
        readTagged: reader.readTagged,
        head: reader.head,
        reader: Reader.inSnapshot(storage, codec, requireTags),
        tagging: makeTagging(storage, codec, name),
        aggregatedStream: (options: AggregatedStream.Options<A>) =>
          AggregatedStream.make(storage, codec, accessors.time, name, options),
        withTransaction: storage.withTransaction,
        ...makeSchedule<A>(storage, codec, name, encoded),
        ...makeDeleting(storage, codec, accessors, name),
        ...makeForget<A>(storage, shredding, appendOne)
      }))
    }
  )
