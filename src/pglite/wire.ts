/** The PostgreSQL wire protocol, as far as `sessions.ts` reads and writes it. */

/** The first byte of a backend message. */
export const answer = { commandComplete: 0x43, error: 0x45, notification: 0x41, readyForQuery: 0x5a }

/** The ReadyForQuery status outside of a transaction: "I". */
export const idle = 0x49

export const cancelRequestCode = 80877102

/**
 * Cuts what arrives into frames. Chunks are joined only when a whole frame is there: linear, however small they are.
 */
export class Frames {
  private chunks: Array<Buffer> = []
  private received = 0
  private wanted = 0
  /** The bytes of a frame up to and including its length; the startup message alone has no type byte before it. */
  private header = 4

  private lengthOf(bytes: Buffer): number {
    return bytes.length < this.header ? this.header : this.header - 4 + bytes.readInt32BE(this.header - 4)
  }

  *push(chunk: Buffer): Generator<Buffer> {
    this.chunks.push(chunk)
    this.received += chunk.length
    if (this.received < this.wanted) return
    let bytes = this.chunks.length === 1 ? chunk : Buffer.concat(this.chunks)
    while (bytes.length >= (this.wanted = this.lengthOf(bytes))) {
      const frame = bytes.subarray(0, this.wanted)
      bytes = bytes.subarray(this.wanted)
      this.header = 5
      yield frame
    }
    this.chunks = bytes.length > 0 ? [bytes] : []
    this.received = bytes.length
  }
}

/** The zero-terminated string at an offset, and the offset behind it. */
export const text = (frame: Buffer, from: number): { readonly value: string; readonly end: number } => {
  const end = frame.indexOf(0, from)
  return { value: frame.toString("utf8", from, end), end: end + 1 }
}

export const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

export const message = (type: string, ...body: ReadonlyArray<string | Buffer>): Buffer => {
  const bytes = Buffer.concat(body.map((part) => Buffer.from(part)))
  return Buffer.concat([Buffer.from(type), int32(bytes.length + 4), bytes])
}

export const sync = message("S")
export const rollback = message("Q", "ROLLBACK\0")
export const closeStatement = (name: string): Buffer => message("C", `S${name}\0`)
export const readyForQuery = message("Z", "I")

/** The answer to a startup message: authentication succeeded, and `id` is the process id of the backend. */
export const welcome = (id: number): Buffer =>
  Buffer.concat([message("R", int32(0)), message("K", int32(id), int32(0)), readyForQuery])

export const canceled = Buffer.concat([
  message("E", "SERROR\0VERROR\0C57014\0Mcanceling statement due to user request\0\0"),
  readyForQuery
])

/**
 * Sent before every Sync. PostgreSQL ignores it, except after a COPY FROM STDIN, which then fails. Without it COPY would
 * wait for data, which PGlite cannot do: the database would end.
 */
export const copyFail = message("f", "COPY FROM STDIN is not supported\0")
