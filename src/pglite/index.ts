/**
 * `effect-message-store/pglite`: a `SqlClient` on an in-process PostgreSQL. Needs the package `@electric-sql/pglite`.
 */
export * as PgliteClient from "./PgliteClient.ts"
