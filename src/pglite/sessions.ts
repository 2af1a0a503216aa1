/**
 * Many PostgreSQL sessions on the one backend of a PGlite database: each session is a Duplex that speaks the wire
 * protocol in process, so a pool of them looks to `@effect/sql-pg` like a pool of sockets to a server.
 *
 * A session goes through these states:
 *
 * - `idle -> waiting` when a complete unit of messages (everything up to a Sync) has arrived;
 * - `waiting -> served` in order of arrival: the session owns the backend, and nobody else reaches it;
 * - `served -> idle` when the backend answers ReadyForQuery "I"; until then a transaction is open and the session stays
 *   served, also while it sends nothing;
 * - `-> gone` from any state when it disconnects. What it left on the backend (an open transaction, prepared
 *   statements) is cleared before the backend is given to another session.
 *
 * Only what `@effect/sql-pg` sends is understood: no TLS, no authentication, no simple queries, no COPY, and a Flush is
 * answered together with the Sync that follows it.
 */
import type { PGlite } from "@electric-sql/pglite"
import { Duplex } from "node:stream"
import { Channels, type Listen } from "./channels.ts"
import * as Wire from "./wire.ts"

/**
 * Makes the `stream` option of a `PgClient` or `PgConnection`: every call opens one more session on `database`.
 *
 * A turn of a session runs inside `database.runExclusive`, so statements sent to `database` directly, and its `close`,
 * wait for the transaction of that turn to end.
 */
export const make = (database: PGlite): () => Duplex => {
  const backend = new Backend(database)
  return () => new Session(backend)
}

/** Bytes that the backend answers as a whole, ending in ReadyForQuery. */
interface Unit {
  readonly bytes: Uint8Array
  readonly listens: ReadonlyArray<Listen>
}

class Backend {
  readonly database: PGlite
  readonly sessions = new Map<number, Session>()
  /** The waiting sessions. A Set keeps the order of arrival and holds each session once. */
  readonly line = new Set<Session>()
  served: Session | undefined
  private serving = false
  private lastId = 0
  private failure: Error | undefined

  constructor(database: PGlite) {
    this.database = database
  }

  register(session: Session): number {
    this.sessions.set(++this.lastId, session)
    return this.lastId
  }

  /** Called whenever a session has something for the backend: a unit, or its remains. */
  request(session: Session): void {
    if (this.served === session) return session.wake()
    this.line.add(session)
    void this.serveLine()
  }

  /** Never rejects: `serve` handles its own failures. */
  private async serveLine(): Promise<void> {
    if (this.serving) return
    this.serving = true
    // iteration over a Set sees the sessions that join, or join again, while it runs
    for (const session of this.line) {
      this.line.delete(session)
      this.served = session
      await this.database.runExclusive(() => this.serve(session))
      this.served = undefined
      if (session.needsBackend) this.line.add(session)
    }
    this.serving = false
  }

  private async serve(session: Session): Promise<void> {
    try {
      for (let unit = session.units.shift(); unit !== undefined; unit = await session.nextUnit()) {
        this.answer(session, unit, await this.execute(unit.bytes))
        if (session.status === Wire.idle) break
      }
    } catch (cause) {
      session.destroy(cause instanceof Error ? cause : new Error(String(cause)))
    }
    if (session.destroyed) await this.clear(session)
  }

  /** Rejects if PGlite itself fails; what PostgreSQL refuses is part of its answer. */
  private async execute(bytes: Uint8Array): Promise<Buffer> {
    if (this.ended !== undefined) this.fail(this.ended)
    const chunks: Array<Uint8Array> = []
    try {
      await this.database.execProtocolRawStream(bytes, {
        // a chunk is a view of the memory that the backend goes on writing to
        onRawData: (chunk) => void chunks.push(chunk.slice())
      })
    } catch (cause) {
      this.fail(new Error("PGlite failed", { cause }))
    }
    return Buffer.concat(chunks)
  }

  /** Why no session can be served any more. */
  get ended(): Error | undefined {
    return this.failure ?? (this.database.ready ? undefined : new Error("PGlite is closed"))
  }

  /** Ends every session, the idle listeners too. A PGlite that failed is not called again: it might never return. */
  private fail(failure: Error): never {
    this.failure = failure
    for (const session of this.sessions.values()) session.destroy(failure)
    throw failure
  }

  /** Hands the output to the session, after the notifications in it: these go to the sessions that listen. */
  private answer(session: Session, unit: Unit, output: Buffer): void {
    const notifications: Array<Buffer> = []
    const replies: Array<Buffer> = []
    let kept = 0
    let ready = false
    let undone = false
    for (let at = 0, end = 0; at < output.length; at = end) {
      end = at + 1 + output.readInt32BE(at + 1)
      switch (output[at]) {
        case Wire.answer.commandComplete:
          undone = output.toString("latin1", at + 5, end - 1) === "ROLLBACK"
          break
        case Wire.answer.error:
          undone = true
          break
        case Wire.answer.notification:
          replies.push(output.subarray(kept, at))
          notifications.push(output.subarray(at, end))
          kept = end
          break
        case Wire.answer.readyForQuery:
          ready = true
          session.status = output.readUInt8(at + 5)
          break
      }
    }
    if (!ready) this.fail(new Error("PGlite stopped answering"))
    session.channels.executed(unit.listens)
    if (session.status === Wire.idle) session.channels.settle(!undone)
    for (const notification of notifications) this.notify(session, notification)
    for (const reply of [...replies, output.subarray(kept)]) session.send(reply)
  }

  private notify(from: Session, notification: Buffer): void {
    const channel = notification.toString("utf8", 9, notification.indexOf(0, 9))
    // all sessions share one backend process id: name the session that notified instead
    notification.writeInt32BE(from.id, 5)
    for (const session of this.sessions.values()) {
      if (session.channels.has(channel)) session.send(notification)
    }
  }

  /** Clears what a session that is gone left on the backend. Never rejects: if PGlite fails, nothing is left to clear. */
  private async clear(session: Session): Promise<void> {
    const messages = Array.from(session.statements, Wire.closeStatement)
    if (session.status !== Wire.idle) messages.unshift(Wire.rollback)
    session.statements.clear()
    session.status = Wire.idle
    if (messages.length === 0) return
    await this.execute(Buffer.concat([...messages, Wire.sync])).catch(() => {})
  }
}

class Session extends Duplex {
  /** 0 until the startup message, then the process id that the client is told. */
  id = 0
  /** The transaction status of the last ReadyForQuery. */
  status = Wire.idle
  readonly units: Array<Unit> = []
  /** The prepared statements on the backend, by name. */
  readonly statements = new Set<string>()
  readonly channels = new Channels()

  private readonly backend: Backend
  private readonly frames = new Wire.Frames()
  private unit: Array<Buffer> = []
  private listens: Array<Listen> = []
  private unitArrived: (() => void) | undefined

  constructor(backend: Backend) {
    super()
    this.backend = backend
  }

  get needsBackend(): boolean {
    return this.destroyed ? this.statements.size > 0 || this.status !== Wire.idle : this.units.length > 0
  }

  /** While served in a transaction: waits for the next unit; undefined once the session is gone. */
  async nextUnit(): Promise<Unit | undefined> {
    while (this.units.length === 0 && !this.destroyed) {
      await new Promise<void>((resolve) => {
        this.unitArrived = resolve
      })
    }
    return this.units.shift()
  }

  wake(): void {
    this.unitArrived?.()
  }

  /** In pieces, so that a reader of a large result can pause in the middle of it. */
  send(bytes: Buffer): void {
    for (let at = 0; at < bytes.length && !this.destroyed; at += pieceSize) {
      this.push(bytes.subarray(at, at + pieceSize))
    }
  }

  /** Answers the unit that waits. One that is served cannot be interrupted: it runs on this very thread. */
  cancel(): void {
    if (!this.backend.line.has(this)) return
    this.units.shift()
    if (this.units.length === 0) this.backend.line.delete(this)
    this.send(Wire.canceled)
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    for (const frame of this.frames.push(chunk)) {
      if (this.id === 0) this.startup(frame)
      else this.receive(frame)
      if (this.destroyed) break
    }
    done()
  }

  override _final(done: () => void): void {
    done()
    this.destroy()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.backend.sessions.delete(this.id)
    this.backend.line.delete(this)
    this.units.length = 0
    if (this.needsBackend) this.backend.request(this)
    done(error)
  }

  private startup(frame: Buffer): void {
    if (frame.readInt32BE(4) === Wire.cancelRequestCode) {
      this.backend.sessions.get(frame.readInt32BE(8))?.cancel()
      this.destroy()
    } else if (this.backend.ended !== undefined) {
      this.destroy(this.backend.ended)
    } else {
      this.id = this.backend.register(this)
      this.send(Wire.welcome(this.id))
    }
  }

  private receive(frame: Buffer): void {
    switch (frame.toString("latin1", 0, 1)) {
      case "X": // Terminate
        this.destroy()
        return
      case "S": // Sync
        this.units.push({ bytes: Buffer.concat([...this.unit, Wire.copyFail, frame]), listens: this.listens })
        this.unit = []
        this.listens = []
        this.backend.request(this)
        return
      case "P": { // Parse
        const name = Wire.text(frame, 5).value
        if (name !== "") this.statements.add(name)
        this.unit.push(this.channels.parse(frame))
        return
      }
      case "B": // Bind
        this.channels.bind(frame)
        break
      case "E": // Execute
        this.listens.push(...this.channels.execute())
        break
      case "C": // Close: "S" for a statement, name
        if (frame.toString("latin1", 5, 6) === "S") this.statements.delete(Wire.text(frame, 6).value)
        break
    }
    this.unit.push(frame)
  }
}

const pieceSize = 64 * 1024
