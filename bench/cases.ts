/** What is measured, and of whom. */
import {
  archive,
  batch,
  byHand,
  type Case,
  inRun,
  interpreted,
  jsonb,
  type Load,
  noSchema,
  of,
  ours,
  persons,
  projection,
  server,
  single,
  type Subjects
} from "./Case.ts"
import { decisions } from "./decisionCases.ts"
import type { CatchUpWork, LinkWork, StartWork, SubscribeWork, WriteWork } from "./work.ts"

const link = (partitioner: LinkWork["partitioner"]): Case =>
  of(`project-${partitioner}`, `100,000 messages are linked, by ${partitioner}`, { kind: "link", partitioner }, [
    "sql-pg",
    ours
  ], { load: { streams: 1000, length: 100 }, runs: "notQuick" })

const linkOne = (messages: number, streams: number): Case =>
  of(
    `project-one-${messages}-${streams}`,
    `one new message is linked, ${messages.toLocaleString("en")} stored in ${streams.toLocaleString("en")} streams`,
    { kind: "linkOne" },
    [ours],
    { load: { streams, length: messages / streams }, runs: "asked" }
  )

const upsert = { messages: 100_000, delivery: "transactional", acknowledge: "batch", handler: "upsert" } as const

/** One message in each: claims and their ends are most of the work. */
const inManyPartitions = (
  partitions: number,
  { delivery, acknowledge }: Pick<SubscribeWork, "delivery" | "acknowledge">,
  runs: Case["runs"]
): Case =>
  of(
    `subscribe-partitions-${partitions}${delivery === "transactional" ? "-transaction" : ""}`,
    `${partitions.toLocaleString("en")} messages, each in a partition of its own, handled and acknowledged${
      delivery === "transactional" ? " in transactions" : ""
    }`,
    { kind: "subscribe", partitions: "streams", messages: partitions, delivery, acknowledge, handler: "each" },
    [ours],
    { load: { streams: partitions, length: 1 }, runs }
  )

const subscriptions: ReadonlyArray<
  Omit<SubscribeWork, "kind" | "partitions"> & { readonly name: string; readonly title: string }
> = [
  {
    name: "batch",
    title: "each message handled, acknowledged by batch",
    messages: 100_000,
    delivery: "atLeastOnce",
    acknowledge: "batch",
    handler: "each"
  },
  {
    name: "single",
    title: "each message handled and acknowledged",
    messages: 5000,
    delivery: "atLeastOnce",
    acknowledge: "message",
    handler: "each"
  },
  {
    name: "transaction",
    title: "each message in a transaction",
    messages: 5000,
    delivery: "transactional",
    acknowledge: "message",
    handler: "each"
  },
  {
    name: "upsert",
    title: "each batch in a transaction, with an upsert into a table of the user's",
    ...upsert
  }
]

const subscribes = (partitions: number): ReadonlyArray<Case> =>
  subscriptions.map(({ name, title, ...work }) =>
    of(
      `subscribe-${name}-${partitions}`,
      `${title}, ${partitions === 1 ? "1 partition" : `${partitions} partitions`}`,
      { kind: "subscribe", partitions, ...work },
      [ours],
      { load: { streams: 1000, length: 100 }, runs: partitions === 16 ? "notQuick" : "asked" }
    )
  )

const statements: ReadonlyArray<Case> = subscriptions.map(({ name, title, ...work }) =>
  of(
    `subscribe-statements-${name}`,
    `statements for each message: ${title}, 16 partitions`,
    { kind: "statements", work: { kind: "subscribe", partitions: 16, ...work } },
    [ours],
    { load: { streams: 1000, length: 100 }, runs: "notQuick", unit: "statements" }
  )
)

const start = (measures: StartWork["measures"]): Case =>
  of(
    measures === "time" ? "start" : "start-statements",
    `a process opens a store with 50 aggregated streams and their subscriptions, all of them there already${
      measures === "time" ? "" : ": statements"
    }`,
    { kind: "start", streams: 50, measures },
    [ours],
    { runs: "notQuick", unit: measures === "time" ? "ms" : "statements" }
  )

const catchUp = (name: string, measures: CatchUpWork["measures"], unit: Case["unit"]): Case => {
  const titled = (messages: string) =>
    `a new version of a projection catches up with ${messages} messages, 16 partitions${
      measures === "memory" ? ": the most memory that its process had" : ""
    }`
  return of(name, titled("1,000,000"), { kind: "catchUp", messages: 1_000_000, measures }, [ours], {
    load: { streams: 1000, length: 1000 },
    quick: {
      title: titled("100,000"),
      work: { kind: "catchUp", messages: 100_000, measures },
      load: { streams: 1000, length: 100 }
    },
    unit,
    runs: "asked"
  })
}

const scheduled = (messages: number) => ({
  title: `${
    messages.toLocaleString("en")
  } messages, each of a stream of its own, are due at once: one scheduler writes them`,
  work: { kind: "scheduled", messages } as const
})

const latency = (percentile: number): Case =>
  of(
    `subscribe-latency-p${percentile}`,
    `from write to handler, through store, projector and subscription, at 100 writes/s: ${percentile} % are faster`,
    { kind: "latency", percentile },
    [ours],
    { load: { streams: 1000, length: 100 }, runs: "notQuick", unit: "ms" }
  )

const imported: Load = { streams: 100, length: 1000 }

const read100k: Load = { streams: 1, length: 100_000 }

const growth = (messages: number, streams: number, runs: Case["runs"]): ReadonlyArray<Case> => {
  const load: Load = { streams, length: messages / streams }
  const title = `with ${messages.toLocaleString("en")} messages stored, in ${streams.toLocaleString("en")} streams`
  const work: WriteWork = { kind: "write", fibers: 1, size: 1, streams: "loaded" }
  return [
    of(
      `growth-tail-${messages}-${streams}`,
      `reading the last 10 messages of a stream ${title}`,
      { kind: "readTail", fibers: 1, size: 10 },
      [ours],
      { load, runs, unit: "reads/s" }
    ),
    of(`growth-write-${messages}-${streams}`, `one write at a time ${title}`, work, [ours], { load, runs })
  ]
}

/** With two personal fields, of so many persons, beside the same without. */
const personal: ReadonlyArray<Case> = [
  of("personal-write-1", "one write at a time, two of its fields personal", single(1), [ours, ...persons], {
    runs: "asked"
  }),
  of("personal-write-64", "64 fibers, each its own stream, two fields personal", single(64), [ours, ...persons], {
    runs: "asked"
  }),
  of("personal-batch-100", "100 at a time to one stream, two fields of each personal", batch(100), [ours, ...persons], {
    runs: "asked"
  }),
  of(
    "personal-read-100k",
    "a stream of 100,000 messages, two fields of each personal",
    { kind: "read", fibers: 1 },
    [ours, ...persons],
    { load: read100k, runs: "asked" }
  )
]

const unnested: Subjects = [
  "sql-pg unnest",
  "sql-pg",
  ours,
  interpreted,
  noSchema,
  "Emmett",
  "message-db",
  server
]

const reading: Subjects = ["sql-pg", ours, interpreted, noSchema, "pg", "Emmett", "message-db", server]

export const cases: ReadonlyArray<Case> = [
  of("write-1", "one write at a time", single(1), ["sql-pg", ours, noSchema, "pg", "Emmett", "message-db", server]),
  of("write-8", "8 fibers, each its own stream", single(8), ["sql-pg", ours, "pg", "Emmett", "message-db", server], {
    runs: "notQuick"
  }),
  of("write-64", "64 fibers, each its own stream", single(64), ["sql-pg", ours, "pg", "Emmett", "message-db"]),
  of(
    "hot-any",
    "64 fibers on one stream, no expectation",
    { kind: "write", fibers: 64, size: 1, streams: "one" },
    ["sql-pg", ours, "pg", "Emmett", "message-db"]
  ),
  of(
    "hot-expected",
    "64 fibers on one stream: read the version, write expecting it, again on conflict",
    { kind: "writeExpecting", fibers: 64 },
    ["sql-pg", ours, byHand, "pg", "Emmett", "message-db"]
  ),
  of("batch-10", "10 at a time to one stream", batch(10), unnested),
  of("batch-100", "100 at a time to one stream", batch(100), unnested),
  of(
    "batch-1000",
    "1000 at a time to one stream",
    batch(1000),
    unnested
  ),
  of(
    "batch-100x4",
    "4 fibers, each 100 at a time to its own stream",
    batch(100, 4),
    unnested,
    { runs: "notQuick" }
  ),
  of(
    "read-100",
    "8 fibers read streams of 100 messages",
    { kind: "read", fibers: 8 },
    reading,
    { load: { streams: 1000, length: 100 } }
  ),
  of(
    "read-wildcard-100k",
    "1000 streams of 100 messages, by wildcard in the order of positions",
    { kind: "readAll", fibers: 1 },
    ["sql-pg", ours, interpreted, noSchema],
    { load: { streams: 1000, length: 100 }, runs: "notQuick" }
  ),
  of(
    "read-100k",
    "a stream of 100,000 messages",
    { kind: "read", fibers: 1 },
    reading,
    { load: read100k }
  ),
  of(
    "payload-read-100k",
    "read-100k with the message column as json and as jsonb",
    { kind: "read", fibers: 1 },
    [ours, jsonb],
    { load: read100k, runs: "notQuick" }
  ),
  of("payload-write-64", "write-64 with the message column as json and as jsonb", single(64), [ours, jsonb], {
    runs: "notQuick"
  }),
  of("payload-batch-1000", "batch-1000 with the message column as json and as jsonb", batch(1000), [ours, jsonb], {
    runs: "notQuick"
  }),
  link("constant"),
  link("streamName"),
  link("field"),
  link("depeche"),
  link("function"),
  linkOne(10_000, 1000),
  linkOne(1_000_000, 1000),
  linkOne(1_000_000, 100_000),
  ...subscribes(1),
  ...subscribes(4),
  ...subscribes(16),
  inManyPartitions(1000, { delivery: "atLeastOnce", acknowledge: "batch" }, "asked"),
  inManyPartitions(10_000, { delivery: "atLeastOnce", acknowledge: "batch" }, "notQuick"),
  inManyPartitions(10_000, { delivery: "transactional", acknowledge: "batch" }, "asked"),
  ...statements,
  start("time"),
  start("statements"),
  latency(50),
  latency(99),
  of(
    "projection",
    "subscribe-upsert-16, and the same into a version of a projection",
    { kind: "subscribe", partitions: 16, ...upsert },
    [ours, projection],
    { load: { streams: 1000, length: 100 }, runs: "notQuick" }
  ),
  catchUp("catch-up-1000000", "messages", "messages/s"),
  catchUp("catch-up-memory", "memory", "MiB"),
  of("scheduled", scheduled(10_000).title, scheduled(10_000).work, [ours], {
    quick: scheduled(2000),
    runs: "notQuick"
  }),
  ...personal,
  of(
    "import",
    "100,000 messages into an empty table: written 1000 at a time to one stream, and by an archive of 100 streams",
    { kind: "import" },
    ["sql-pg unnest", "pg COPY", "sql-pg", ours, archive],
    { load: imported, runs: "notQuick" }
  ),
  of("export", "100,000 messages of 100 streams: read, and as an archive", { kind: "export" }, [ours, archive], {
    load: imported,
    runs: "notQuick"
  }),
  ...growth(10_000, 1, "notQuick"),
  ...growth(10_000, 10_000, "notQuick"),
  ...growth(1_000_000, 1, "notQuick"),
  ...growth(1_000_000, 1000, "asked"),
  ...growth(1_000_000, 1_000_000, "notQuick"),
  ...growth(5_000_000, 1, "asked"),
  ...growth(5_000_000, 1000, "asked"),
  ...growth(5_000_000, 1_000_000, "asked"),
  ...decisions
]

/** Those that a word stands for: the one of that name, else all whose names contain it. */
export const casesNamed = (word: string): ReadonlyArray<Case> => {
  const exact = cases.filter(({ name }) => name === word)
  return exact.length > 0 ? exact : cases.filter(({ name }) => name.includes(word))
}

/** Those asked for; without words, those of a normal or a quick run. Of the subjects, those named, if any are. */
export const selectCases = (
  options: {
    readonly only: ReadonlyArray<string>
    readonly subjects: ReadonlyArray<string>
    readonly quick: boolean
  }
): ReadonlyArray<Case> => {
  const asked = new Set(options.only.flatMap(casesNamed))
  return cases.flatMap((each) => {
    const runs = options.only.length > 0
      ? asked.has(each)
      : each.runs === "always" || (each.runs === "notQuick" && !options.quick)
    const one = inRun(each, options.quick)
    const [baseline, ...others] = one.subjects.filter((name) =>
      options.subjects.length === 0 || options.subjects.includes(name)
    )
    return runs && baseline !== undefined ? [{ ...one, subjects: [baseline, ...others] }] : []
  })
}
