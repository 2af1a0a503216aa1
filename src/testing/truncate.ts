/** Begins anew: for tests and examples. Needs no test framework. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { outsideTransaction } from "../internal/checks.ts"
import type { MessageStore } from "../MessageStore.ts"
import { backendOf } from "../store/backends.ts"

/**
 * Removes all messages of a store. Not inside a transaction. Global positions go on rising. Aggregated streams keep their
 * links until they are rebuilt, and subscriptions their checkpoints until they are reset.
 *
 * **Example**
 *
 * ```ts
 * import { truncate } from "effect-message-store/testing/truncate"
 *
 * yield* truncate(orders)
 * ```
 */
export const truncate = <A>(store: MessageStore<A>): Effect.Effect<void, InvalidArgumentError | SqlError> =>
  Effect.suspend(() => {
    const storage = backendOf(store)
    if (storage === undefined) return Effect.die(new Error("only a store that a layer made can be truncated"))
    return Effect.andThen(outsideTransaction(storage, "truncate"), storage.truncate)
  })
