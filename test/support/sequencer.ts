import { BaseSequencer, type TestSpecification } from "vitest/node"

/** The files that take longest, by what they take on a machine of two processors, in seconds. */
const seconds: Readonly<Record<string, number>> = {
  "contract/subscription": 95,
  "contract/messageStore": 80,
  "contract/otherStores": 70,
  driverTypes: 65,
  examples: 60,
  projectionRaces: 60,
  leases: 50,
  cli: 50,
  package: 50,
  decisionsOracle: 50,
  subscriptions: 45,
  chaos: 45,
  mixed: 40,
  readModels: 35,
  dashboardLarge: 33,
  shop: 31,
  workers: 31,
  pgliteDirectory: 29,
  longStream: 25,
  projectionPlans: 22,
  "contract/projection": 21,
  "contract/aggregatedStream": 20,
  deadlocks: 20,
  pauses: 19,
  tagging: 18,
  failover: 16,
  operatingUnderLoad: 15,
  "contract/operator": 14,
  processManager: 14,
  cluster: 14,
  forgetting: 13,
  archives: 12,
  searchPath: 12,
  projection: 11,
  scheduling: 11,
  growth: 11,
  types: 10,
  wakeup: 10,
  pglite: 9,
  pgliteLayerFrom: 9,
  readModelVersions: 8,
  groupCommit: 7,
  following: 7
}

const fileOf = ({ moduleId }: TestSpecification) => /.*\/test\/(.*)\.test\.ts$/.exec(moduleId)?.[1] ?? moduleId

/** Begins with the files that take longest, so that the workers end together, whatever earlier runs have left. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const of = (file: TestSpecification) => seconds[fileOf(file)] ?? 0
    return files.toSorted((a, b) => of(b) - of(a) || fileOf(a).localeCompare(fileOf(b)))
  }
}
