/** What is compared: a way to write and read messages, in a database of its own. */
import type { Effect, Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { Load } from "../Case.ts"
import type { Measurement } from "../measure.ts"
import type { Own, Tag, Type } from "../tagged.ts"
import type { ReadWork, StreamWork, UpdateWork, WriteWork } from "../work.ts"

/** A new, empty database. */
export interface Database {
  readonly url: string
  /** For what is not measured, and for the subjects that run on it. */
  readonly sql: SqlClient.SqlClient
}

/**
 * Of the operations, a subject has those that the cases ask of it.
 *
 * What a write needs is made when the effect is made, and not measured; the effect calls the subject's own API, and
 * is run once.
 */
export interface Subject {
  /** Appends messages to a stream, whatever its version. */
  readonly write?: (stream: string, size: number) => Effect.Effect<void, unknown>
  /** Appends a message to a stream: reads the version, writes expecting it, begins again on a conflict. */
  readonly writeExpecting?: (stream: string) => Effect.Effect<void, unknown>
  /** Reads what has the tags, decides on it and appends, again on a conflict; tells how many messages it decided on. */
  readonly decide?: (question: Question) => Effect.Effect<number, unknown>
  /** Appends if nothing was added to the tags since they were loaded. */
  readonly appendIf?: (question: Question) => Effect.Effect<void, unknown>
  /** Updates loaded streams of which there are so many; says how many milliseconds an update takes. */
  readonly update?: (work: UpdateWork, streams: number) => Effect.Effect<Measurement, unknown>
  /** Gives all stored messages their tags anew, while others write; says how many in which time. */
  readonly retag?: Effect.Effect<Measurement, unknown>
  /** Reads a stream from its beginning, and tells how many messages there were. */
  readonly read?: (stream: string) => Effect.Effect<number, unknown>
  /** Reads the last messages of a stream. */
  readonly readTail?: (stream: string, size: number) => Effect.Effect<number, unknown>
  /** Reads all streams whose names begin so, in the order of global positions. */
  readonly readAll?: (prefix: string) => Effect.Effect<number, unknown>
  /** Reads all messages of both types that have a tag. */
  readonly readTagged?: (customer: string) => Effect.Effect<number, unknown>
  /** Links messages to partitions, and hands them to handlers; says how much of it in which time. */
  readonly stream?: (work: StreamWork) => Effect.Effect<Measurement, unknown>
  /** Does it without the client, and says how much in which time. */
  readonly alone?: (
    work: Extract<WriteWork, { readonly kind: "write" }> | Extract<ReadWork, { readonly kind: "read" }>,
    milliseconds: number,
    load: Load | undefined
  ) => Effect.Effect<Measurement, unknown>
  /** Stores messages in streams named by {@link storedStream}, `length` in each. The store is empty. */
  readonly load: (streams: number, length: number) => Effect.Effect<void, unknown>
  readonly clear: Effect.Effect<void, unknown>
  readonly table: Table
}

/** The tags on which is decided whether a message goes to a stream, and the two that the message has. */
export interface Question {
  readonly stream: string
  readonly own: Own
  readonly asked: ReadonlyArray<Tag>
  /** The types that are asked about. */
  readonly types: ReadonlyArray<Type>
}

/** Where the messages end up: to be counted. */
export interface Table {
  readonly name: string
  /** Absent: there are no streams. */
  readonly streams?: { readonly name: string; readonly version: string; readonly first: number }
  /** Of what was decided on one hot tag, the tag and the number that the decision gave to its message: 1, 2, 3, … */
  readonly decided?: { readonly customer: string; readonly number: string }
}

export interface SubjectDefinition {
  readonly make: (database: Database) => Effect.Effect<Subject, unknown, Scope.Scope>
}

/** Stream names have a category of their own: message-db locks by category. */
export const storedStream = (n: number): string => `stored${n}-1`

/** Rows are read this many at a time. */
export const pageSize = 1000

export const rangeOf = <A>(length: number, make: (index: number) => A): Array<A> =>
  Array.from({ length }, (_, index) => make(index))
