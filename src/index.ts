/**
 * The message store for Effect applications on PostgreSQL.
 */
export * from "./errors.ts"

/** Message ids, times, metadata, positions. */
export * as Message from "./Message.ts"

/** Schema ⇄ stored JSON. */
export * as Serializer from "./Serializer.ts"

/** The port that a backend implements. */
export * as Storage from "./Storage.ts"

/** Typed reads. */
export * as Reader from "./Reader.ts"

/** The store. */
export * as MessageStore from "./MessageStore.ts"
