/**
 * The database objects of stores, aggregated streams, subscriptions and projections, as numbered migrations: one file each, in the
 * folder of what they make, and listed here.
 *
 * The first of each makes what depeche_db's contract asks for, where it does not exist; what Python made is adopted as
 * it is. The others add what this library needs, and do no harm to Python processes beside it.
 *
 * **To add one**, write a file with the next number and add it to the list. A migration that has been released never
 * changes: it holds its text whole, and shares no function with anything that may change. A function of the database is
 * changed by making it anew in a new migration; the newest that makes it is its text. Statements have to be safe in a
 * database that another version of this library, or Python, is working on at the same time.
 */
import { Result } from "effect"
import type { InvalidNameError } from "../../errors.ts"
import * as Objects from "../objects.ts"
import type { Migration, PayloadType } from "./Migration.ts"
import * as Projection1 from "./projection/0001_versions.ts"
import * as Store1 from "./store/0001_messages.ts"
import * as Store2 from "./store/0002_columns.ts"
import * as Store4 from "./store/0004_times.ts"
import * as Store5 from "./store/0005_functions.ts"
import * as Store6 from "./store/0006_decisions.ts"
import * as Store7 from "./store/0007_tagging.ts"
import * as Store8 from "./store/0008_scheduled.ts"
import * as Store9 from "./store/0009_subjectKeys.ts"
import * as Store10 from "./store/0010_forgetting.ts"
import * as Store11 from "./store/0011_lean.ts"
import * as Stream1 from "./stream/0001_tables.ts"
import * as Stream2 from "./stream/0002_columns.ts"
import * as Stream3 from "./stream/0003_projection.ts"
import * as Subscription1 from "./subscription/0001_tables.ts"
import * as Subscription2 from "./subscription/0002_origin.ts"
import * as Subscription3 from "./subscription/0003_locks.ts"
import * as Subscription4 from "./subscription/0004_control.ts"

export type { Migration, PayloadType }

/** The database objects of a store. */
export const forStore = (
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forStore(name), (objects) => [
    { id: 1, name: "messages", statements: Store1.messages(objects, options?.payload ?? "json") },
    { id: 2, name: "columns", statements: Store2.columns(objects) },
    // 3 made the functions of 0.1, which 5 makes anew.
    { id: 4, name: "times", statements: Store4.times(objects) },
    { id: 5, name: "functions", statements: Store5.functions(objects) },
    { id: 6, name: "decisions", statements: Store6.decisions(objects) },
    { id: 7, name: "tagging", statements: Store7.tagging(objects) },
    { id: 8, name: "scheduled", statements: Store8.scheduled(objects) },
    { id: 9, name: "subject keys", statements: Store9.subjectKeys(objects) },
    { id: 10, name: "forgetting", statements: Store10.forgetting(objects) },
    { id: 11, name: "lean", statements: Store11.lean(objects) }
  ])

/** The database objects of an aggregated stream of a store. */
export const forStream = (
  storeName: string,
  name: string
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.flatMap(Objects.forStore(storeName), (store) =>
    Result.map(Objects.forStream(name), (stream) => [
      { id: 1, name: "aggregated stream", statements: Stream1.tables(store, stream) },
      { id: 2, name: "columns", statements: Stream2.columns(store, stream) },
      { id: 3, name: "projection", statements: Stream3.projection(store, stream) }
    ]))

/** The database objects of a subscription. */
export const forSubscription = (name: string): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forSubscription(name), (subscription) => [
    {
      id: 1,
      name: "subscription",
      statements: [...Subscription3.locks(subscription), ...Subscription1.tables(subscription)]
    },
    { id: 2, name: "origin", statements: Subscription2.origin(subscription) },
    { id: 3, name: "locks", statements: Subscription3.locks(subscription) },
    { id: 4, name: "control", statements: Subscription4.control(subscription) }
  ])

/** The database objects of a projection. Those of its versions are made with them. */
export const forProjection = (name: string): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forProjection(name), (projection) => [
    { id: 1, name: "versions", statements: Projection1.versions(projection) }
  ])
