/** Server-sent events: what the charts show, and that something has changed. */
import { Duration, Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Change, Live, Sample } from "./live.ts"

/** So many browsers may listen at the same time. */
const mostListeners = 100

/**
 * How long a browser listens before it connects anew, which it does by itself: a server that stops gracefully waits for the
 * requests in hand, and these would not end.
 */
const listens = Duration.seconds(15)

const heartbeat = "5 seconds"

const encoder = new TextEncoder()

/** The id is the time of the last sample: a browser that connects anew tells it. */
const event = (name: string, data: unknown, at?: number): Uint8Array =>
  encoder.encode(
    `event: ${name}\nretry: 500\n${at === undefined ? "" : `id: ${at}\n`}data: ${JSON.stringify(data)}\n\n`
  )

const ofChange = (change: Change): Uint8Array =>
  change._tag === "Sampled"
    ? event("sample", { ...change.sample, state: change.state }, change.sample.at)
    : event("failed", {})

/** What the browser does not have yet. */
const since = (samples: ReadonlyArray<Sample>, after: number): Uint8Array =>
  event("history", samples.filter(({ at }) => at > after), samples.at(-1)?.at)

export const make = (live: Live) => {
  let listeners = 0
  const counted = Effect.acquireRelease(
    Effect.sync(() => listeners++),
    () => Effect.sync(() => listeners--)
  )
  return (after: number): HttpServerResponse.HttpServerResponse => {
    if (listeners >= mostListeners) {
      return HttpServerResponse.text("too many pages are open", { status: 503, headers: { "retry-after": "30" } })
    }
    const history = Stream.fromEffect(Effect.map(live.samples, (samples) => since(samples, after)))
    const events = Stream.merge(
      Stream.map(live.changes, ofChange),
      Stream.map(Stream.tick(heartbeat), () => encoder.encode(": still here\n\n"))
    )
    return HttpServerResponse.stream(
      Stream.unwrap(Effect.as(counted, Stream.concat(history, events))).pipe(
        Stream.interruptWhen(Effect.sleep(listens))
      ),
      { contentType: "text/event-stream; charset=utf-8", headers: { "x-accel-buffering": "no" } }
    )
  }
}
