/** Commands that take streams out of a store, and into one. */
import { Console, Effect, Option, Stdio, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Archive from "../Archive.ts"
import { confirm, yes } from "./ask.ts"
import { storeName, withDatabase } from "./connect.ts"
import { CommandError } from "./failure.ts"
import { show } from "./look.ts"
import { hint, line } from "./output.ts"

const archived = Effect.flatMap(storeName, Archive.open)

const exportCommand = Command.make("export", {
  pattern: Argument.String("pattern").pipe(
    Argument.optional,
    Argument.withDescription("Of names of streams, LIKE: % any run of characters, _ any one. Default: all")
  ),
  to: Flag.String("to").pipe(
    Flag.optional,
    Flag.withMetavar("<file>"),
    Flag.withDescription("The file; one that ends in .gz is compressed. Default: what is printed")
  )
}, ({ pattern, to }) =>
  withDatabase(Effect.scoped(Effect.gen(function*() {
    const text = (yield* archived).export({ pattern: Option.getOrUndefined(pattern) })
    if (Option.isSome(to)) {
      yield* Archive.toFile(to.value)(text)
      const manifest = yield* Archive.verify(Archive.fromFile(to.value))
      return yield* show(
        manifest,
        line(`${manifest.messages} messages of ${manifest.streams} streams are in the archive`, "green")
      )
    }
    // As it is: what it holds is for files and other programs.
    const stdio = yield* Stdio.Stdio
    if (yield* stdio.stdoutIsTerminal) {
      return yield* new CommandError({
        reason: "an archive is nothing for a terminal: give --to, or redirect the output"
      })
    }
    yield* Stream.run(Stream.encodeText(text), stdio.stdout({ endOnDone: false }))
  })))).pipe(Command.withDescription("Streams out of a store, as an archive of lines of JSON"))

const importCommand = Command.make("import", {
  from: Argument.String("file").pipe(Argument.withDescription("An archive; one that ends in .gz is decompressed")),
  yes
}, (flags) =>
  withDatabase(Effect.scoped(Effect.gen(function*() {
    const manifest = yield* Archive.verify(Archive.fromFile(flags.from))
    yield* confirm(flags.yes, `Import ${manifest.messages} messages of ${manifest.streams} streams?`)
    const archive = yield* archived
    const last = yield* archive.import(Archive.fromFile(flags.from)).pipe(
      Stream.tap(({ messages, total }) => hint(`${messages} of ${total}`)),
      Stream.runLast
    )
    const { messages, skipped } = Option.getOrElse(last, () => ({ messages: 0, skipped: 0 }))
    yield* show(
      { messages, skipped },
      Console.log(`${messages} messages are in the store, of which ${skipped} were there before`)
    )
  })))).pipe(Command.withDescription("Puts the streams of an archive into a store; what is there is left out"))

export const commands = [exportCommand, importCommand] as const
