/** Reads an archive: what comes out of it was checked. */
import { Array as Arr, Effect, Result, Stream } from "effect"
import { ArchiveError } from "../errors.ts"
import type { ArchivedMessage } from "../storage/archive.ts"
import * as Format from "./format.ts"

/** Text of an archive, in pieces of any size, or its bytes in UTF-8. */
export type Source<E, R> = Stream.Stream<string | Uint8Array, E, R>

/** Messages that were checked, and what they are of. */
export interface Block {
  readonly manifest: Format.Manifest
  readonly messages: Arr.NonEmptyReadonlyArray<ArchivedMessage>
  /** The line of the first of them, from 1. */
  readonly line: number
  /** How many characters their lines have. */
  readonly size: number
}

/** Whether an archive has come to its end; what it is of. */
export interface End {
  readonly manifest: Format.Manifest
}

/**
 * The messages of an archive, in blocks of up to 1000, and then its end, if it has come there: an archive that is cut off, or was
 * altered, fails where that shows.
 */
export const read = <E, R>(source: Source<E, R>): Stream.Stream<Block | End, ArchiveError | E, R> =>
  Stream.suspend(() => {
    const lines = new Lines()
    const checks = new Checks()
    return source.pipe(
      Stream.mapEffect((piece) => Effect.fromResult(lines.push(piece))),
      Stream.flattenIterable,
      Stream.mapEffect((some) => checks.check(some)),
      Stream.flattenIterable,
      Stream.concat(Stream.fromEffect(Effect.suspend(() => Effect.fromResult(checks.end(lines.end())))))
    )
  })

export const isBlock = (one: Block | End): one is Block => "messages" in one

/** Lines, and the check behind them. */
interface Checked {
  readonly lines: ReadonlyArray<string>
  /** The line of the first, from 1. */
  readonly line: number
  readonly check: Format.Check
}

const fault = (line: number, reason: string): Result.Result<never, ArchiveError> =>
  Result.fail(new ArchiveError({ line, reason }))

/** Cuts text into lines, and these behind each check. */
class Lines {
  private readonly decoder = new TextDecoder()
  private lines: Array<string> = []
  /** Of the first of these. */
  private line = 1
  /** What has come of the line that has not ended yet. */
  private rest = ""
  /** How many characters have come since the last check. */
  private size = 0

  push(piece: string | Uint8Array): Result.Result<ReadonlyArray<Checked>, ArchiveError> {
    const text = typeof piece === "string" ? piece : this.decoder.decode(piece, { stream: true })
    const found: Array<Checked> = []
    const ended = text.split("\n")
    ended[0] = this.rest + (ended[0] ?? "")
    this.rest = ended.pop() ?? ""
    this.size += text.length
    for (const line of ended) {
      const check = Format.parseCheck(line)
      if (check === undefined) {
        this.lines.push(line)
        continue
      }
      found.push({ lines: this.lines, line: this.line, check })
      this.line += this.lines.length + 1
      this.lines = []
      this.size = this.rest.length
    }
    // A manifest, and as many messages as there may be.
    return this.size > Format.mostText || this.lines.length > 1 + Format.messagesAtATime
      ? fault(this.line, "and those behind it are too many without a check")
      : Result.succeed(found)
  }

  /** What is left behind the last check. */
  end(): { readonly lines: ReadonlyArray<string>; readonly line: number; readonly rest: string } {
    return { lines: this.lines, line: this.line, rest: this.rest + this.decoder.decode() }
  }
}

/** Holds lines against their checks. */
class Checks {
  private manifest: Format.Manifest | undefined
  private hash = ""
  private messages = 0
  private position = 0
  private isEnded = false

  /** No block, if there are no messages. */
  check({ check, line, lines }: Checked): Effect.Effect<ReadonlyArray<Block>, ArchiveError> {
    if (this.isEnded) return Effect.fromResult(fault(line, "stands behind the end of the archive"))
    const isFirst = this.manifest === undefined
    const manifest = isFirst ? Format.parseManifest(lines[0] ?? "") : Result.succeed(this.manifest)
    if (Result.isFailure(manifest)) return Effect.fromResult(fault(line, manifest.failure))
    const text = lines.map((each) => `${each}\n`).join("") + check.start
    return Effect.flatMap(Format.hashOf(this.hash, text), (hash) => {
      if (hash !== check.sha256) {
        const reason = `or one of the ${lines.length} behind it was altered, added or lost after it was written`
        return Effect.fromResult(fault(line, reason))
      }
      this.manifest = manifest.success
      this.hash = hash
      this.isEnded = check.kind === "end"
      return Effect.fromResult(
        isFirst ? this.parse(lines.slice(1), line + 1, check, text.length) : this.parse(lines, line, check, text.length)
      )
    })
  }

  end({ line, lines, rest }: ReturnType<Lines["end"]>): Result.Result<End, ArchiveError> {
    if (this.isEnded && this.manifest !== undefined) {
      return lines.length === 0 && rest === ""
        ? Result.succeed({ manifest: this.manifest })
        : fault(line, "stands behind the end of the archive")
    }
    const [first] = lines
    const manifest = this.manifest === undefined && first !== undefined ? Format.parseManifest(first) : undefined
    return manifest !== undefined && Result.isFailure(manifest)
      ? fault(line, manifest.failure)
      : fault(line + lines.length, `is ${rest === "" ? "missing" : "incomplete"}: the archive is cut off there`)
  }

  private parse(
    lines: ReadonlyArray<string>,
    line: number,
    check: Format.Check,
    size: number
  ): Result.Result<ReadonlyArray<Block>, ArchiveError> {
    const { manifest } = this
    this.messages += lines.length
    if (check.messages !== this.messages || (this.isEnded && this.messages !== manifest?.messages)) {
      return fault(line + lines.length, `says another number of messages than there are (${this.messages})`)
    }
    const messages: Array<ArchivedMessage> = []
    for (const [i, text] of lines.entries()) {
      const message = Format.parseMessage(text)
      if (Result.isFailure(message)) return fault(line + i, message.failure)
      if (message.success.globalPosition <= this.position) {
        return fault(line + i, "is out of order: global positions have to rise")
      }
      this.position = message.success.globalPosition
      messages.push(message.success)
    }
    return Result.succeed(
      manifest !== undefined && Arr.isReadonlyArrayNonEmpty(messages) ? [{ manifest, messages, line, size }] : []
    )
  }
}
