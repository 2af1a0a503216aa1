/**
 * Tells pages that there is something new. One stream follows the messages for all pages of this process. An event carries no
 * data but its place: a page that missed some, because it is slow or its connection broke, reads once and is up to date.
 */
import { Context, Deferred, Effect, Layer, PubSub, Schedule, Stream } from "effect"
import { ByProduct, ShopView } from "./readModel.ts"

interface Change {
  readonly position: number
}

export class Live extends Context.Service<Live, {
  /** The last change, and those to come. */
  readonly changes: Stream.Stream<Change>
  /** Ends all streams of changes. */
  readonly end: Effect.Effect<void>
}>()("examples/Live") {
  static readonly layer = Layer.effect(
    Live,
    Effect.gen(function*() {
      const stream = yield* ByProduct
      const view = yield* ShopView
      const ended = yield* Deferred.make<void>()
      const hub = yield* PubSub.sliding<Change>({ capacity: 1, replay: 1 })
      yield* PubSub.publish(hub, { position: 0 }) // a page hears at once that it is connected

      // The message is linked; the page reads the read model, which has it a little later.
      const isShown = ({ position }: Change) =>
        Effect.retry(view.waitUntilProcessed(position, "10 seconds"), {
          while: (error) => error._tag === "NotProcessedError"
        })

      // From the last message of each partition on: when it begins again, pages hear of what they may have missed.
      const linked = Stream.unwrap(
        Effect.map(
          stream.partitions,
          (heads) => stream.follow({ from: new Map(heads.map(({ partition, position }) => [partition, position])) })
        )
      )

      yield* linked.pipe(
        Stream.map(({ globalPosition }): Change => ({ position: globalPosition })),
        Stream.mapEffect((change) => Effect.as(isShown(change), change), { concurrency: 16, unordered: true }),
        Stream.runForEach((change) => PubSub.publish(hub, change)),
        Effect.tapError((error) => Effect.logWarning("Following the shop failed: it begins again", error)),
        Effect.retry(Schedule.spaced("1 second")),
        Effect.forkScoped
      )
      return Live.of({
        changes: Stream.interruptWhen(Stream.fromPubSub(hub), Deferred.await(ended)),
        end: Effect.asVoid(Deferred.succeed(ended, undefined))
      })
    })
  )
}
