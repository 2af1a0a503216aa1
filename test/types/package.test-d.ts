/** The package's doors: the root, each of its modules (so that declarations can name their types), and no others. */
export type * as Store from "effect-message-store"
export type * as Module from "effect-message-store/MessageStore"
export type * as Pglite from "effect-message-store/pglite"
export type * as Testing from "effect-message-store/testing"

// @ts-expect-error -- the inside is not for users
export type * as Inside from "effect-message-store/postgres"
