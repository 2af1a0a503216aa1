#!/usr/bin/env node
/** The command line of operators: `effect-message-store --help` tells what there is. */
import { layer as childProcesses } from "@effect/platform-node-shared/NodeChildProcessSpawner"
import { layer as fileSystem } from "@effect/platform-node-shared/NodeFileSystem"
import { layer as path } from "@effect/platform-node-shared/NodePath"
import { runMain } from "@effect/platform-node-shared/NodeRuntime"
import { layer as stdio } from "@effect/platform-node-shared/NodeStdio"
import { layer as terminal } from "@effect/platform-node-shared/NodeTerminal"
import { Console, Effect, Layer, Predicate, References, Runtime } from "effect"
import { CliOutput, Command } from "effect/cli"
import { readFileSync } from "node:fs"
import process from "node:process"
import * as Act from "./act.ts"
import * as Archive from "./archive.ts"
import { Json, Store, Url } from "./connect.ts"
import * as Dashboard from "./dashboard.ts"
import { toLine } from "./failure.ts"
import * as Look from "./look.ts"

const root = Command.make("effect-message-store").pipe(
  Command.withDescription("Looks at message stores, and puts right what is wrong"),
  Command.withSubcommands([...Look.commands, ...Act.commands, ...Archive.commands, ...Dashboard.commands]),
  Command.withGlobalFlags([Url, Store, Json])
)

/** Of a call that is wrong it tells why, and where help is. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Console.error(
        `error: ${event.errors.map(toLine).join("; ")}: see \`${event.commandPath.join(" ")} --help\``
      )
      : CliOutput.defaultPresenter.present(event)
}

/** A program that reads what is printed may end before it has all. */
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1))

const platform = Layer.provideMerge(childProcesses, Layer.mergeAll(fileSystem, path, stdio, terminal))

const { version }: { readonly version: string } = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8")
)

/** A failure that was told already has told all. */
const told = (error: unknown) => Predicate.isTagged(error, "Unhealthy") || Predicate.isTagged(error, "ShowHelp")

root.pipe(
  Command.run({ version, renderErrors: true }),
  Effect.tapError((error) => told(error) ? Effect.void : Console.error(`error: ${toLine(error)}`)),
  Effect.provide(CliOutput.layerPresenter(presenter)),
  Effect.provideService(References.MinimumLogLevel, "Error"),
  Effect.provide(platform),
  (program) => runMain(program, { disableErrorReporting: true, teardown: Runtime.defaultTeardown })
)
