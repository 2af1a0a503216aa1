/** Foreign code may throw where it should return a failure. */
import { Result } from "effect"

/** What it returns; a failure with what it throws. */
export const attempt = <A>(evaluate: () => Result.Result<A, unknown>): Result.Result<A, unknown> => {
  try {
    return evaluate()
  } catch (cause) {
    return Result.fail(cause)
  }
}
