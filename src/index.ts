/**
 * The message store for Effect applications on PostgreSQL.
 *
 * @module effect-message-store
 */
export * from "./errors.ts"

/** Message ids, times, metadata, positions. */
export * as Message from "./Message.ts"

/** Values that are known, or forgotten. */
export * as Personal from "./Personal.ts"

/** What encrypts the keys of subjects. */
export * as KeyEncryption from "./KeyEncryption.ts"

/** Where the keys of subjects are kept. */
export * as SubjectKeys from "./SubjectKeys.ts"

/** How a state follows from messages. */
export * as Fold from "./Fold.ts"

/** Folds that answer commands. */
export * as Decider from "./Decider.ts"

/** Decisions on several things at once. */
export * as Decision from "./Decision.ts"

/** Schema ⇄ stored JSON. */
export * as Serializer from "./Serializer.ts"

/** Which partition of an aggregated stream a message belongs to. */
export * as Partitioner from "./Partitioner.ts"

/** The port that a backend implements. */
export * as Storage from "./Storage.ts"

/** Typed reads. */
export * as Reader from "./Reader.ts"

/** What is done with a message. */
export * as Handlers from "./Handlers.ts"

/** Every message handled, in order, by one process at a time. */
export * as Subscription from "./Subscription.ts"

/** Read models with versions. */
export * as Projection from "./Projection.ts"

/** Keeps an aggregated stream up to date. */
export * as Projector from "./Projector.ts"

/** Many streams merged into numbered partitions. */
export * as AggregatedStream from "./AggregatedStream.ts"

/** The store. */
export * as MessageStore from "./MessageStore.ts"

/** What is in a store, what happens, and what to put right. */
export * as Operator from "./Operator.ts"

/** Streams out of a store as lines of JSON, and into one. */
export * as Archive from "./Archive.ts"
