/**
 * The functions that project (`projection.ts` tells how they work). They replace those of version 0.1.
 *
 * They run with a search path of their own: they are called for a page, not for a message. What only the database knows
 * is filled in when they are made: `<schema>`, the time zone of Python's columns.
 */
import type { Objects, StreamObjects } from "../../objects.ts"
import { inSchemaOf, making } from "../schema.ts"
import { linkFunction, projectFunction, scanFunction } from "./0003_pages.ts"
import { roundFunction } from "./0003_round.ts"
import { occurredFunction, timeFunction } from "./0003_times.ts"
import { waitingFunction } from "./0003_waiting.ts"

export const projection = (objects: Objects, unqualified: StreamObjects): ReadonlyArray<string> => {
  const store: Objects = { ...objects, table: `<schema>.${objects.table}` }
  const stream = inSchema(unqualified)
  const texts = [
    timeFunction(stream),
    occurredFunction(store, stream),
    roundFunction(store, stream),
    projectFunction(store, stream),
    scanFunction(store, stream),
    linkFunction(store, stream),
    waitingFunction(store, stream)
  ]
  return [
    inSchemaOf(objects.table),
    ...[unqualified.roundFunction, unqualified.projectFunction, unqualified.beginFunction, unqualified.linkFunction]
      .map((name) => `drop function if exists ${name}`),
    ...texts.map((text) => making(objects, text))
  ]
}

const inSchema = (stream: StreamObjects): StreamObjects => ({
  ...stream,
  table: `<schema>.${stream.table}`,
  maximumTable: `<schema>.${stream.maximumTable}`,
  projectionTable: `<schema>.${stream.projectionTable}`,
  roundFunction: `<schema>.${stream.roundFunction}`,
  projectFunction: `<schema>.${stream.projectFunction}`,
  scanFunction: `<schema>.${stream.scanFunction}`,
  linkFunction: `<schema>.${stream.linkFunction}`,
  waitingFunction: `<schema>.${stream.waitingFunction}`,
  timeFunction: `<schema>.${stream.timeFunction}`,
  occurredFunction: `<schema>.${stream.occurredFunction}`
})
