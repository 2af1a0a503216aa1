/** The cases of `decide`: tags, decisions on them, and long streams. What each is made of says the README. */
import {
  batch,
  byDecide,
  cached,
  type Case,
  dcb,
  dcbInTurns,
  type Load,
  of,
  ours,
  single,
  snapshots,
  type Subjects,
  tags
} from "./Case.ts"
import { type Matches, matchesOf } from "./matches.ts"
import type { DecideWork, ReadWork, UpdateWork } from "./work.ts"

const callers = (fibers: number) => fibers === 1 ? "one at a time" : `${fibers} at a time`

const decide = (
  name: string,
  title: string,
  work: DecideWork,
  subjects: Subjects,
  options?: Pick<Case, "quick">
): Case => of(name, title, work, subjects, { unit: "decisions/s", runs: "notQuick", ...options })

const untaggedBeside = (fibers: number): Case =>
  of(
    `decide-write-${fibers}`,
    `writes with two tags each beside writes with none, no condition, ${callers(fibers)}`,
    single(fibers),
    [ours, tags, dcb],
    { runs: "notQuick" }
  )

const ownBoundaries = (fibers: number): ReadonlyArray<Case> => [
  decide(
    `decide-append-${fibers}`,
    `appends on a condition of two new tags, ${callers(fibers)}; the condition is known, nothing is read`,
    { kind: "appendIf", fibers, boundary: "own" },
    [dcb, tags]
  ),
  decide(
    `decide-own-${fibers}`,
    `decisions on two new tags, ${callers(fibers)}: read, fold, decide, append`,
    { kind: "decide", fibers, boundary: "own" },
    [dcb, tags]
  )
]

const hotBoundary = (fibers: number): ReadonlyArray<Case> => {
  const subjects: Subjects = [dcbInTurns, dcb, tags]
  const quick = { subjects: [dcbInTurns, tags] } as const // conflicts take their time
  return [
    decide(
      `decide-hot-${fibers}`,
      `decisions on one tag that all have, and one of their own, ${callers(fibers)}, until each has succeeded`,
      { kind: "decide", fibers, boundary: "hot" },
      subjects,
      { quick }
    ),
    decide(
      `decide-shared-${fibers}`,
      `decisions on one tag that all have, and nothing else, ${callers(fibers)}, until each has succeeded`,
      { kind: "decide", fibers, boundary: "shared" },
      subjects,
      { quick }
    )
  ]
}

/** What is stored where decisions are on stored tags; and with `--quick`. */
const million: Load = { streams: 1000, length: 1000 }
const tenth: Load = { streams: 1000, length: 100 }

/** What is measured on a tag with so many matches among a million messages; with `--quick` among a tenth of it. */
const onStored = (
  matches: Matches,
  name: string,
  title: (found: string) => string,
  work: DecideWork | ReadWork,
  unit: Case["unit"]
): Case => {
  const titled = ({ length, streams }: Load) => {
    const [found, stored] = [matchesOf(matches, streams * length), streams * length].map((n) => n.toLocaleString("en"))
    return title(`a tag with ${found} matches among ${stored} messages, two types asked about`)
  }
  return of(`${name}-${matchesOf(matches, million.streams * million.length)}`, titled(million), work, [dcb, tags], {
    load: million,
    unit,
    runs: "notQuick",
    quick: { load: tenth, title: titled(tenth) }
  })
}

const stored = (matches: Matches): ReadonlyArray<Case> => [
  onStored(
    matches,
    "decide-append-tag",
    (found) => `appends on the condition of ${found}, one at a time; the condition is known, nothing is read`,
    { kind: "appendIf", fibers: 1, boundary: matches },
    "decisions/s"
  ),
  onStored(
    matches,
    "decide-tag",
    (found) => `decisions on ${found}, one at a time: read, fold, decide, append`,
    { kind: "decide", fibers: 1, boundary: matches },
    "decisions/s"
  ),
  onStored(
    matches,
    "decide-read",
    (found) => `reading ${found}, one read at a time`,
    { kind: "readTagged", fibers: 1, matches },
    "messages/s"
  )
]

const retag: Case = of(
  "decide-retag",
  "1,000,000 stored messages are given two tags each, while 200 are written in a second",
  { kind: "retag" },
  [tags],
  {
    load: million,
    runs: "notQuick",
    quick: { load: tenth, title: "100,000 stored messages are given two tags each, while 200 are written in a second" }
  }
)

const longStream = (stream: UpdateWork["stream"]): Case =>
  of(
    `decide-update-${stream}`,
    `an update of a stream of 35,000 messages, ${stream === "new" ? "the first one" : "again and again"}`,
    { kind: "update", stream },
    [ours, snapshots, cached],
    {
      load: { streams: 12, length: 35_000 },
      quick: { load: { streams: 6, length: 35_000 } },
      unit: "ms",
      runs: "notQuick"
    }
  )

export const decisions: ReadonlyArray<Case> = [
  ...[1, 8, 64].map(untaggedBeside),
  of(
    "decide-batch-100",
    "100 messages with two tags each beside 100 with none, no condition, at a time to one stream",
    batch(100),
    [ours, tags, dcb],
    { runs: "notQuick" }
  ),
  ...[1, 8, 64].flatMap(ownBoundaries),
  ...[8, 64].flatMap(hotBoundary),
  of(
    "decide-stream-64",
    "hot-expected by update, and by decide: 64 fibers on one stream",
    { kind: "writeExpecting", fibers: 64 },
    [ours, byDecide],
    { runs: "notQuick" }
  ),
  ...(["10", "1000", "tenth"] as const).flatMap(stored),
  retag,
  longStream("new"),
  longStream("same")
]
