/**
 * Where the data keys of subjects are kept: by default in a table of the store.
 *
 * A backup of the database has the keys of that table in it, and brings back whom it forgets. Provide a `SubjectKeys` service to the
 * store's layer to keep them elsewhere, under rules of their own, or for several stores in one place.
 */
import { Context } from "effect"
import type { SubjectKeyStorage } from "./storage/subjectKeys.ts"

export type { Rewrapped, SubjectKey, SubjectKeyError, SubjectKeyStorage } from "./storage/subjectKeys.ts"

/**
 * Keeps the data keys of subjects, in place of the store's own table.
 *
 * **Example**
 *
 * ```ts
 * Customers.layer.pipe(Layer.provide([KeyEncryption.layer(keys), Layer.succeed(SubjectKeys.SubjectKeys, vault)]))
 * ```
 */
export class SubjectKeys
  extends Context.Service<SubjectKeys, SubjectKeyStorage>()("effect-message-store/SubjectKeys")
{}
