import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The files that take longest, by what they take on a machine of two processors, in seconds. */
const seconds: Readonly<Record<string, number>> = {
  "contract/otherStores": 150,
  driverTypes: 100,
  examples: 90,
  "contract/subscription": 80,
  "contract/messageStore": 70,
  decisionsOracle: 60,
  leases: 50,
  projectionRaces: 45,
  chaos: 40,
  subscriptions: 40,
  mixed: 33,
  shop: 30,
  workers: 30,
  dashboardLarge: 28,
  cli: 25,
  readModels: 25,
  "contract/projection": 23,
  pauses: 23,
  longStream: 20,
  package: 20,
  pgliteDirectory: 20,
  deadlocks: 17,
  projectionPlans: 17,
  "contract/aggregatedStream": 15,
  tagging: 15,
  cluster: 13,
  projection: 13,
  projectionPython: 13,
  scheduling: 13
}

const fileOf = ({ moduleId }: TestSpecification) => /.*\/test\/(.*)\.test\.ts$/.exec(moduleId)?.[1] ?? moduleId

/** Begins with the files that take longest, so that the workers end together, whatever earlier runs have left. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const of = (file: TestSpecification) => seconds[fileOf(file)] ?? 0
    return files.toSorted((a, b) => of(b) - of(a) || fileOf(a).localeCompare(fileOf(b)))
  }
}
