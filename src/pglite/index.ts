/**
 * `effect-message-store/pglite`: a `SqlClient` on an in-process PostgreSQL. Needs the package `@electric-sql/pglite`.
 *
 * @module effect-message-store/pglite
 */
export * as PgliteClient from "./PgliteClient.ts"
