/** The pages, by their paths. */
import type { Page } from "./asked.ts"
import { aggregatedStream, aggregatedStreams } from "./pages/aggregatedStreams.ts"
import { message, messageData } from "./pages/message.ts"
import { find, messages } from "./pages/messages.ts"
import { overview } from "./pages/overview.ts"
import { parked } from "./pages/parked.ts"
import { projections } from "./pages/projections.ts"
import { scheduled } from "./pages/scheduled.ts"
import { stream, streams } from "./pages/streams.ts"
import { subscription, subscriptions } from "./pages/subscriptions.ts"

export const pages: ReadonlyMap<string, Page> = new Map<string, Page>([
  ["/", overview],
  ["/find", find],
  ["/streams", streams],
  ["/stream", stream],
  ["/messages", messages],
  ["/aggregated-streams", aggregatedStreams],
  ["/aggregated-stream", aggregatedStream],
  ["/subscriptions", subscriptions],
  ["/subscription", subscription],
  ["/parked", parked],
  ["/projections", projections],
  ["/scheduled", scheduled]
])

/** By what follows the id of a message. */
export const pagesOfMessages: ReadonlyMap<string, Page> = new Map<string, Page>([
  ["", message],
  ["/data", messageData]
])
