/** The message that a handler is handling, for what it writes meanwhile. */
import { Context } from "effect"
import type { Metadata } from "../Message.ts"

/** What a write says of the message that it answers. */
export type Answered = Required<Pick<Metadata, "correlationId" | "causationId">>

/** In the context of handlers; undefined elsewhere, and in handlers of several messages at once. */
export const Handled = Context.Reference<Answered | undefined>("effect-message-store/internal/Handled", {
  defaultValue: () => undefined
})

/** The message is the cause; a message without a correlation id is the first of what is correlated. */
export const answered = (
  { messageId, metadata }: { readonly messageId: string; readonly metadata: Metadata }
): Answered => ({ correlationId: metadata.correlationId ?? messageId, causationId: messageId })
