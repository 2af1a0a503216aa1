/** What is done with the blocks of an archive, some at a time. */
import { Array as Arr, Effect, Stream } from "effect"
import { type Block, type End, isBlock } from "./read.ts"

/** How far it has come. */
export interface Progress {
  /** How many messages are done, of `total`. */
  readonly messages: number
  readonly total: number
  /** What has been counted of them. */
  readonly counted: number
}

/** Tells how far it has come behind the blocks that were done together; of an archive without messages, once. */
export const progress = <E, R, E2>(
  archive: Stream.Stream<Arr.NonEmptyReadonlyArray<Block | End>, E, R>,
  count: (blocks: Arr.NonEmptyReadonlyArray<Block>) => Effect.Effect<number, E2>
): Stream.Stream<Progress, E | E2, R> =>
  Stream.mapAccumEffect(
    archive,
    (): Progress => ({ messages: 0, total: 0, counted: 0 }),
    Effect.fnUntraced(function*(before, some) {
      const blocks = some.filter(isBlock)
      if (!Arr.isReadonlyArrayNonEmpty(blocks)) return [before, before.messages === 0 ? [before] : []] as const
      const counted = before.counted + (yield* count(blocks))
      const messages = blocks.reduce((sum, block) => sum + block.messages.length, before.messages)
      const now = { messages, total: blocks[0].manifest.messages, counted }
      return [now, [now]] as const
    })
  )
