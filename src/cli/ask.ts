/** What changes something asks first, or is told `--yes`. */
import { Effect } from "effect"
import { Flag, Prompt, TerminalCapabilities } from "effect/cli"
import { CommandError } from "./failure.ts"

export const yes = Flag.Boolean("yes").pipe(
  Flag.withAlias("y"),
  Flag.withDefault(false),
  Flag.withDescription("Do it without asking")
)

/** Goes on if somebody has said so. */
export const confirm = (said: boolean, question: string) =>
  Effect.gen(function*() {
    if (said) return
    const { canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
    if (!canPrompt) return yield* new CommandError({ reason: `${question} There is nobody to ask: add --yes` })
    if (!(yield* Prompt.run(Prompt.Confirm({ message: question })))) {
      return yield* new CommandError({ reason: "nothing was changed" })
    }
  })
