/** Runs a layer until the process gets SIGTERM (or Ctrl-C): then what it has is released, and the process ends with 0. */
import { NodeRuntime } from "@effect/platform-node"
import { Layer, Runtime } from "effect"

export const run = <E>(layer: Layer.Layer<never, E>) =>
  NodeRuntime.runMain(Layer.launch(layer), {
    teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
  })
