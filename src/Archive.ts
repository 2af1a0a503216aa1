/**
 * Archives: streams out of a store as lines of JSON, and into a store.
 *
 * **Guarantees**
 *
 * - An archive has what is stored, as it is stored: ids, versions, times, metadata and data, numbers digit by digit, encrypted fields
 *   encrypted. It needs no schema, and it is one consistent view of the store.
 * - Memory stays constant, however much goes out or comes in.
 * - What was altered or lost since shows before it is imported, at most a thousand messages at a time, and before anything is
 *   deleted.
 * - To import is idempotent: what is there is left out. An import that was interrupted goes on when it is made again.
 * - Imported messages are new to the store: they have new global positions, in their order, and the tags that are declared; they
 *   are projected, and listeners are woken. Others may write meanwhile.
 *
 * **Example**
 *
 * ```ts
 * const archive = Archive.of(orders)
 * yield* archive.export({ pattern: "order-%" }).pipe(Archive.toFile("orders.ndjson.gz"))
 * yield* Stream.runDrain(Archive.of(elsewhere).import(Archive.fromFile("orders.ndjson.gz")))
 * ```
 */
import { Context, Effect, Layer, Option, Stream } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type DeleteError, type DeleteProgress, make as makeDelete } from "./archive/delete.ts"
import { type ExportError, type ExportOptions, make as makeExport } from "./archive/export.ts"
import type { Manifest } from "./archive/format.ts"
import { type ImportError, type ImportProgress, make as makeImport } from "./archive/import.ts"
import { read, type Source } from "./archive/read.ts"
import type { ArchiveError, InvalidNameError, SetupError, UnsupportedEngineError } from "./errors.ts"
import type { MessageStore } from "./MessageStore.ts"
import * as PostgresStorage from "./postgres/storage.ts"
import { Storage } from "./Storage.ts"
import { backendOf } from "./store/backends.ts"

export { fromFile, toFile } from "./archive/file.ts"
export type { DeleteError, DeleteProgress, ExportError, ExportOptions, ImportError, ImportProgress, Manifest, Source }

/** What is done with archives on a store. */
export interface Archive {
  /**
   * Emits the text of an archive: whole lines, up to 1000 messages at a time, in the order of global positions. Not inside a
   * transaction.
   *
   * **Details**
   *
   * It reads one snapshot of the store, which holds a connection until the end (on PGlite it keeps writers waiting). The first line
   * says what the archive is of and how many messages it has; there is a check after each thousand messages, and at the end.
   */
  readonly export: (options?: ExportOptions) => Stream.Stream<string, ExportError>
  /**
   * Writes the messages of an archive into the store, and emits its progress after each transaction. Not inside a transaction.
   *
   * **Details**
   *
   * Messages that the store has already, with the same ids at the same versions, are left out. Up to four thousand go in with one
   * transaction, while the next ones are read and checked. Fails with an `ArchiveError` where the archive is not what was
   * written, and with an `ArchiveConflictError` where a message has no place: its stream has other messages, or lacks those
   * before it. A stream without messages may begin with any version.
   */
  readonly import: <E, R>(archive: Source<E, R>) => Stream.Stream<ImportProgress, ImportError | E, R>
  /**
   * Deletes from the store the messages that an archive has, and emits its progress after each thousand. Not inside a transaction.
   * The archive is read twice: it has to be whole before anything is deleted.
   *
   * **Details**
   *
   * What was written since the export is kept. It works as `delete` of the store, for up to 1000 messages of up to 500 streams in one
   * transaction; a call that was interrupted may be repeated. Fails with an `ArchiveConflictError` where a stream has an older
   * message that the archive does not have.
   */
  readonly delete: <E, R>(archive: Source<E, R>) => Stream.Stream<DeleteProgress, DeleteError | E, R>
}

/** Exports and imports archives of a store that a layer made, on any backend. */
export const of = <A>(store: MessageStore<A>): Archive => {
  const storage = backendOf(store)
  if (storage === undefined) throw new TypeError("only a store that a layer made has archives")
  return make(storage, store.name)
}

/** The same for a store on PostgreSQL that exists, by its name: no schema is needed. */
export const open = (
  name: string
): Effect.Effect<Archive, InvalidNameError | SetupError | UnsupportedEngineError | SqlError, SqlClient | Scope.Scope> =>
  Effect.map(
    Layer.build(PostgresStorage.layer(name, { migrate: false })),
    (context) => make(Context.get(context, Storage), name)
  )

const make = (storage: Storage["Service"], name: string): Archive => ({
  export: makeExport(storage, name),
  import: makeImport(storage),
  delete: makeDelete(storage)
})

/** Reads a whole archive, and returns what it is of; fails where it is not what was written. Needs no store. */
export const verify = <E, R>(archive: Source<E, R>): Effect.Effect<Manifest, ArchiveError | E, R> =>
  // The end comes last, if the archive has one.
  Effect.map(Stream.runLast(read(archive)), (end) => Option.getOrThrow(end).manifest)
