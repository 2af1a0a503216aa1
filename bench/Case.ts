/** A case: what is measured, of whom, and when. */
import type { SubjectName } from "./subjects/index.ts"
import type { ReadWork, RetagWork, StreamWork, UpdateWork, WriteWork } from "./work.ts"

/** What is stored before. */
export interface Load {
  readonly streams: number
  readonly length: number
}

/** The first is the one that the others are compared with. */
export type Subjects = readonly [baseline: SubjectName, ...others: ReadonlyArray<SubjectName>]

export type Work = WriteWork | ReadWork | StreamWork | UpdateWork | RetagWork

export interface Case {
  readonly name: string
  readonly title: string
  readonly work: Work
  readonly load?: Load
  readonly subjects: Subjects
  /** What is less with `--quick`. */
  readonly quick?: Partial<Pick<Case, "title" | "work" | "load" | "subjects">>
  readonly unit: "messages/s" | "reads/s" | "decisions/s" | "ms" | "statements" | "MiB"
  /** When it runs: always, not with `--quick`, only when asked for by name. */
  readonly runs: "always" | "notQuick" | "asked"
}

export const ours = "effect-message-store"
export const interpreted = "effect-message-store (interpreted)"
export const server = "server only"
export const noSchema = "effect-message-store (no schema)"
export const byHand = "effect-message-store (by hand)"
export const jsonb = "effect-message-store (jsonb)"
export const byDecide = "effect-message-store (decide)"
export const snapshots = "effect-message-store (snapshots)"
export const cached = "effect-message-store (cached)"
export const projection = "effect-message-store (projection)"
export const persons = [
  "effect-message-store (1 person)",
  "effect-message-store (100 persons)",
  "effect-message-store (100,000 persons)"
] as const
export const archive = "effect-message-store (archive)"
export const tags = "effect-message-store (tags)"
export const dcb = "@dcb-es"
export const dcbInTurns = "@dcb-es (in turns)"

export const of = (
  name: string,
  title: string,
  work: Work,
  subjects: Subjects,
  options?: Partial<Pick<Case, "load" | "quick" | "unit" | "runs">>
): Case => ({ name, title, work, subjects, unit: "messages/s", runs: "always", ...options })

export const single = (fibers: number): WriteWork => ({ kind: "write", fibers, size: 1, streams: "own" })
export const batch = (size: number, fibers = 1): WriteWork => ({ kind: "write", fibers, size, streams: "own" })

/** A case in a run that may be quick. */
export const inRun = ({ quick, ...full }: Case, isQuick: boolean): Case => isQuick ? { ...full, ...quick } : full
