/** Archives in files, compressed where their names say so. */
import { Effect, FileSystem, PlatformError, Stream } from "effect"

/**
 * Writes an archive to a file, as a whole or not at all: it has another name (`.partial` behind it) until all of it is on the disk.
 * A file that is there is replaced. If its name ends in `.gz`, it is compressed.
 *
 * **Example**
 *
 * ```ts
 * archive.export({ pattern: "order-%" }).pipe(Archive.toFile("orders.ndjson.gz"))
 * ```
 */
export const toFile = (path: string) =>
<E, R>(
  archive: Stream.Stream<string, E, R>
): Effect.Effect<void, E | PlatformError.PlatformError, R | FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const partial = `${path}.partial`
    const text = Stream.encodeText(archive)
    const bytes = isCompressed(path) ? yield* through(text, new CompressionStream("gzip")) : text
    const write = Effect.gen(function*() {
      const file = yield* files.open(partial, { flag: "w" })
      yield* Stream.runForEach(bytes, (piece) => file.writeAll(piece))
      yield* file.sync
    })
    yield* Effect.scoped(write).pipe(
      Effect.andThen(files.rename(partial, path)),
      Effect.onError(() => Effect.ignore(files.remove(partial)))
    )
  })

/** The bytes of a file, decompressed if its name ends in `.gz`. */
export const fromFile = (
  path: string
): Stream.Stream<Uint8Array, PlatformError.PlatformError, FileSystem.FileSystem> =>
  Stream.unwrap(Effect.gen(function*() {
    const bytes = (yield* FileSystem.FileSystem).stream(path)
    if (!isCompressed(path)) return bytes
    return Stream.mapError(
      yield* through(bytes, new DecompressionStream("gzip")),
      (error) =>
        PlatformError.isPlatformError(error) ? error : PlatformError.systemError({
          _tag: "InvalidData",
          module: "Archive",
          method: "fromFile",
          pathOrDescriptor: path,
          description: "it was not compressed by gzip, or is cut off",
          cause: error
        })
    )
  }))

const isCompressed = (path: string): boolean => path.endsWith(".gz")

/** Through a stream of the platform. What fails in front of it fails behind it. */
const through = <E, R>(
  bytes: Stream.Stream<Uint8Array, E, R>,
  transform: CompressionStream | DecompressionStream
): Effect.Effect<Stream.Stream<Uint8Array, E>, never, R> =>
  Effect.map(Stream.toReadableStreamEffect(bytes), (readable) =>
    Stream.fromReadableStream({
      evaluate: () => readable.pipeThrough(transform as unknown as ReadableWritablePair<Uint8Array, Uint8Array>),
      onError: (error) => error as E
    }))
