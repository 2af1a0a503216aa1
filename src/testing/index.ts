/**
 * Tests to run on code that builds on, or below, the message store. Needs `vitest` and `@effect/vitest`.
 *
 * @module effect-message-store/testing
 */

/** The contract of a backend: messages. */
export * as MessageStoreContract from "./MessageStoreContract.ts"

/** The contract of a backend: aggregated streams. */
export * as AggregatedStreamContract from "./AggregatedStreamContract.ts"

/** The contract of a backend: subscriptions. */
export * as SubscriptionContract from "./SubscriptionContract.ts"

/** The contract of a backend: projections. */
export * as ProjectionContract from "./ProjectionContract.ts"

/** The contract of a backend: operators. */
export * as OperatorContract from "./OperatorContract.ts"

/** The contract of what keeps the keys of subjects. */
export * as SubjectKeysContract from "./SubjectKeysContract.ts"

/** The laws of a serializer. */
export * as SerializerLaws from "./SerializerLaws.ts"

/** The laws of a fold. */
export * as FoldLaws from "./FoldLaws.ts"

/** Given, when, then for deciders, and for decisions on a store. */
export * as Scenario from "./Scenario.ts"

/** Begins anew. Outside of Vitest: `effect-message-store/testing/truncate`. */
export { truncate } from "./truncate.ts"
