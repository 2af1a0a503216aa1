/**
 * Tags that are declared, as a backend keeps them. It keeps these promises:
 *
 * - a message whose writer does not know the declaration that came last has the tags that are found in it at the declared places,
 *   in the form that the serializer gives them, or is refused;
 * - what was stored before a declaration has its tags once the declaration is complete, and not before: who asks earlier asks
 *   about less than there is;
 * - a declaration is in force once all transactions have ended that were open when it was made, prepared ones included. From
 *   then on, nothing is added without its tags.
 */
import type { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { TagPath } from "../internal/tagPaths.ts"

export type { TagPath } from "../internal/tagPaths.ts"

/** A declared place of a tag, and which of the messages that were stored before have it. */
export interface DeclaredTag extends TagPath {
  /** All have it. */
  readonly isComplete: boolean
  /** Those up to this global position. */
  readonly position: number
  /** The global position at which it is complete; undefined: the declaration is not in force yet. */
  readonly upTo: number | undefined
}

/** All that is declared. */
export interface Declarations {
  /** Rises with each declaration, by one or more; 1: nothing is declared. */
  readonly number: number
  readonly tags: ReadonlyArray<DeclaredTag>
}

/** A page of messages that were stored before their tags were declared, and the tags that they have. */
export interface TaggedPage {
  /** For which declared places. All of them have come to `from`, and come to `to`. */
  readonly places: ReadonlyArray<TagPath>
  readonly from: number
  readonly to: number
  readonly tags: ReadonlyArray<{ readonly globalPosition: number; readonly type: string; readonly tag: string }>
}

/** The declarations of one store. */
export interface TaggingStorage {
  /** Adds what is not declared yet. A place that is not required for once is not required from then on. */
  readonly declareTags: (places: ReadonlyArray<TagPath>) => Effect.Effect<Declarations, SqlError>
  readonly declaredTags: Effect.Effect<Declarations, SqlError>
  /**
   * Puts declarations in force, and says how many transactions they wait for. Those of types that have no messages are
   * complete then.
   */
  readonly settleTags: (places: ReadonlyArray<TagPath>) => Effect.Effect<number, SqlError>
  /** Adds the tags of a page, and marks it; false: somebody else has. */
  readonly tagStored: (page: TaggedPage) => Effect.Effect<boolean, SqlError>
}
