/** Wake-ups in memory: after the commit, for the listeners of this process. */
import { Effect, Layer } from "effect"
import { Listeners, Wakeup } from "../storage/listeners.ts"
import * as Transaction from "./transaction.ts"

export const layer: Layer.Layer<Wakeup> = Layer.sync(Wakeup, () => {
  const listeners = new Listeners()
  return Wakeup.of({
    signal: (channel, signals) =>
      signals.length === 0
        ? Effect.void
        : Transaction.afterCommit(Effect.sync(() => listeners.wake(channel))),
    listen: (channel) => listeners.listen(channel)
  })
})
