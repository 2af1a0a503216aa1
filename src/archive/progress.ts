/** What is done with the blocks of an archive, one after the other. */
import { Effect, Stream } from "effect"
import { type Block, type End, isBlock } from "./read.ts"

/** How far it has come. */
export interface Progress {
  /** How many messages are done, of `total`. */
  readonly messages: number
  readonly total: number
  /** What has been counted of them. */
  readonly counted: number
}

/** Tells how far it has come behind each block; of an archive without messages, once. */
export const progress = <E, R, E2>(
  archive: Stream.Stream<Block | End, E, R>,
  count: (block: Block) => Effect.Effect<number, E2>
): Stream.Stream<Progress, E | E2, R> =>
  Stream.mapAccumEffect(
    archive,
    (): Progress => ({ messages: 0, total: 0, counted: 0 }),
    Effect.fnUntraced(function*(before, one) {
      if (!isBlock(one)) return [before, before.messages === 0 ? [before] : []] as const
      const counted = before.counted + (yield* count(one))
      const now = { messages: before.messages + one.messages.length, total: one.manifest.messages, counted }
      return [now, [now]] as const
    })
  )
