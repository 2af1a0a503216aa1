/**
 * What every `SubjectKeys` service has to do, as a suite of tests: for one of your own, which keeps the data keys of subjects
 * elsewhere than in the store's table.
 *
 * It tests one call at a time. What a service promises of transactions of the store's database (see `SubjectKeyStorage`), it
 * has to test itself, if it takes part in them at all.
 *
 * **Example**
 *
 * ```ts
 * SubjectKeysContract.suite("my vault", MyVault.layer)
 * ```
 */
import { layer } from "@effect/vitest"
import type { Duration, Layer } from "effect"
import { SubjectKeys } from "../SubjectKeys.ts"
import { subjectKeyLaws } from "./messageStore/subjectKeys.ts"

/**
 * Registers the suite with Vitest. The layer is built once; the tests use subjects of their own, and forget the key of snapshots,
 * whose subject is empty.
 *
 * @param name of the service, before the name of each test
 * @param service what is tested; other keys may be in it
 * @param options how long building the layer may take; default 1 minute
 */
export const suite = <E>(
  name: string,
  service: Layer.Layer<SubjectKeys, E>,
  { timeout = "1 minute" }: { readonly timeout?: Duration.Input | undefined } = {}
): void =>
  layer(service, { excludeTestServices: true, timeout })(
    `${name}: keys of subjects`,
    (it) => subjectKeyLaws(it, SubjectKeys)
  )
