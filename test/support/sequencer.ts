import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The files that take longest, by what they take on a quiet machine of two processors, in seconds. */
const seconds: Readonly<Record<string, number>> = {
  "contract/messageStore": 120,
  "contract/subscription": 120,
  examples: 100,
  decisionsOracle: 90,
  "contract/otherStores": 70,
  driverTypes: 60,
  leases: 60,
  chaos: 54,
  subscriptions: 43,
  mixed: 38,
  longStream: 37,
  projectionRaces: 37,
  readModels: 35,
  shop: 33,
  workers: 30,
  pauses: 30,
  processManager: 21,
  package: 20,
  tagging: 20
}

const fileOf = ({ moduleId }: TestSpecification) => /.*\/test\/(.*)\.test\.ts$/.exec(moduleId)?.[1] ?? moduleId

/** Begins with the files that take longest, so that the workers end together, whatever earlier runs have left. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const of = (file: TestSpecification) => seconds[fileOf(file)] ?? 0
    return files.toSorted((a, b) => of(b) - of(a) || fileOf(a).localeCompare(fileOf(b)))
  }
}
