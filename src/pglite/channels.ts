/**
 * The channels that one session listens to, as told by the LISTEN and UNLISTEN that pass through it.
 *
 * The backend that the sessions share listens to the channels of all sessions, and never stops: an UNLISTEN there would
 * end the notifications of the others as well. So UNLISTEN is only noted here, and the backend gets one that names a
 * channel of no session.
 */
import { message, text } from "./wire.ts"

/** `LISTEN channel`, `UNLISTEN channel`, or `UNLISTEN *`, which has no channel. */
export interface Listen {
  readonly add: boolean
  readonly channel: string | undefined
}

export class Channels {
  private readonly channels = new Set<string>()
  /** By the name of their prepared statement: executing one again sends no SQL. */
  private readonly prepared = new Map<string, Listen>()
  private bound: Listen | undefined
  private uncommitted: Array<Listen> = []

  has(channel: string): boolean {
    return this.channels.has(channel)
  }

  /** Reads a Parse (statement, query, parameter types) and returns the one for the backend. */
  parse(frame: Buffer): Buffer {
    const name = text(frame, 5)
    const [, verb, channel] = pattern.exec(text(frame, name.end).value) ?? []
    if (verb === undefined || channel === undefined) {
      this.prepared.delete(name.value)
      return frame
    }
    const add = verb.toUpperCase() === "LISTEN"
    this.prepared.set(name.value, { add, channel: channel === "*" ? undefined : unquote(channel) })
    return add ? frame : message("P", `${name.value}\0UNLISTEN "${unusedChannel}"\0\0\0`)
  }

  /** Reads a Bind (portal, statement, values). */
  bind(frame: Buffer): void {
    if (this.prepared.size > 0) this.bound = this.prepared.get(text(frame, text(frame, 5).end).value)
  }

  /** What an Execute executes. Portals are not told apart: the client executes one as soon as it has bound it. */
  execute(): ReadonlyArray<Listen> {
    return this.bound === undefined ? [] : [this.bound]
  }

  /** The statements were executed; they take effect at the commit. */
  executed(listens: ReadonlyArray<Listen>): void {
    this.uncommitted.push(...listens)
  }

  /** The transaction has ended. */
  settle(committed: boolean): void {
    for (const { add, channel } of committed ? this.uncommitted : []) {
      if (channel === undefined) this.channels.clear()
      else if (add) this.channels.add(channel)
      else this.channels.delete(channel)
    }
    this.uncommitted = []
  }
}

const pattern = /^\s*(LISTEN|UNLISTEN)\s+(\*|"(?:[^"]|"")+"|[^\s";*]+)\s*;?\s*$/i
const unusedChannel = "channel of no session"
const unquote = (identifier: string): string =>
  identifier.startsWith("\"") ? identifier.slice(1, -1).replaceAll("\"\"", "\"") : identifier.toLowerCase()
