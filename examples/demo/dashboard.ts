/** The dashboard of the flights, for browsers of this machine. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Operator } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter, HttpServer } from "effect/http"
import { spawn } from "node:child_process"
import { createServer } from "node:http"
import { Flights } from "./flights.ts"

/** Has the browser open a page, if there is somebody to look at it. */
const open = (url: string) =>
  Effect.sync(() => {
    if (!process.stdout.isTTY) return
    const [program, ...args] = process.platform === "darwin"
      ? ["open", url] as const
      : process.platform === "win32"
      ? ["cmd", "/c", "start", url] as const
      : ["xdg-open", url] as const
    spawn(program, args, { stdio: "ignore", detached: true })
      .on("error", () => {}) // there is no browser: the address is printed
      .unref()
  })

/** Serves it on any port that is free. */
export const layerDashboard = HttpRouter.serve(Dashboard.layer({ path: "/", readOnly: false }), {
  disableLogger: true,
  disableListenLog: true
}).pipe(
  Layer.provide(Operator.layerOf(Flights)),
  Layer.provideMerge(
    NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0, gracefulShutdownTimeout: "100 millis" })
  )
)

/** Tells where it is, and shows it. */
export const show = (print: (line: string) => Effect.Effect<void>) =>
  HttpServer.addressFormattedWith((url) => Effect.andThen(print(`dashboard ${url}`), open(url)))
