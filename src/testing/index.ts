/**
 * Tests to run on code that builds on, or below, the message store. Needs `vitest` and `@effect/vitest`.
 */

/** The contract of a backend. */
export * as MessageStoreContract from "./MessageStoreContract.ts"

/** The laws of a serializer. */
export * as SerializerLaws from "./SerializerLaws.ts"
