/** Updates of long streams, one at a time: how long one takes. */
import { Effect } from "effect"
import type { Measurement } from "../measure.ts"
import type { UpdateWork } from "../work.ts"
import { storedStream } from "./Subject.ts"

/** How long the same stream is updated again, at least. */
const milliseconds = 500

export const makeUpdate = (update: (stream: string) => Effect.Effect<unknown, unknown>) => {
  let last = 1 // of the streams that were updated; the first is the one that is updated again and again

  const timed = (stream: string): Effect.Effect<number, unknown> =>
    Effect.suspend(() => {
      const start = performance.now()
      return Effect.map(update(stream), () => performance.now() - start)
    })

  return Effect.fnUntraced(function*(work: UpdateWork, streams: number): Effect.fn.Return<Measurement, unknown> {
    if (work.stream === "new") {
      if (++last > streams) return yield* Effect.die(new Error(`there are ${streams} streams: ask for fewer rounds`))
      return { units: yield* timed(storedStream(last)), seconds: 1 }
    }
    const stream = storedStream(1)
    yield* update(stream)
    yield* Effect.sleep("1 second") // a snapshot is written in the background
    let times = 0
    let total = 0
    for (; total < milliseconds; times++) total += yield* timed(stream)
    return { units: total / times, seconds: 1 }
  })
}
