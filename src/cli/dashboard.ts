/** Serves the dashboard, to this machine unless told otherwise. */
import { Effect, Layer, Option, Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { HttpRouter } from "effect/http"
import { randomBytes } from "node:crypto"
import * as Dashboard from "../Dashboard.ts"
import { loopbackNames } from "../dashboard/security.ts"
import { Operator, type OperatorService } from "../Operator.ts"
import { withOperator } from "./connect.ts"
import { CommandError } from "./failure.ts"
import { show } from "./look.ts"
import { hint, line } from "./output.ts"
import { serve } from "./serve.ts"

/** Pages are made four at a time, beside the poll for all who look on. */
const connections = 6

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d{1,3}){3}|::1)$/.test(host)

const handlerOf = (operator: OperatorService, options: Dashboard.DashboardOptions) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      HttpRouter.toWebHandler(
        Layer.provide(Layer.orDie(Dashboard.layer(options)), Layer.succeed(Operator, operator)),
        { disableLogger: true }
      )
    ),
    ({ dispose }) => Effect.promise(dispose)
  )

const dashboardCommand = Command.make("dashboard", {
  port: Flag.Int("port").pipe(
    Flag.withDefault(4280),
    Flag.withDescription("Where it listens. 0: any port that is free")
  ),
  host: Flag.String("host").pipe(
    Flag.withDefault("127.0.0.1"),
    Flag.withDescription("The address that it listens on. Default: this machine alone reaches it")
  ),
  actions: Flag.Boolean("actions").pipe(
    Flag.withDefault(false),
    Flag.withNegation("read-only"),
    Flag.withDescription("Allow to pause, requeue, reset, promote, …. Without it, or with --read-only, it only shows")
  ),
  token: Flag.Redacted("token").pipe(
    Flag.optional,
    Flag.withDescription(
      "What browsers have to give, 16 characters or more. Default: a new one, in the URL that is printed"
    )
  )
}, ({ actions, host, port, token }) =>
  withOperator((operator) =>
    Effect.scoped(Effect.gen(function*() {
      const secret = Option.getOrElse(token, () => Redacted.make(randomBytes(24).toString("base64url")))
      if (Redacted.value(secret).length < 16) {
        return yield* new CommandError({ reason: "--token must have 16 characters or more" })
      }
      const name = host.includes(":") ? `[${host}]` : host
      const { handler } = yield* handlerOf(operator, {
        path: "/",
        readOnly: !actions,
        token: secret,
        hosts: isLoopback(host) ? [...loopbackNames, name] : undefined
      })
      const listening = yield* serve(handler, { host, port })
      const url = `http://${name}:${listening}/`
      const link = `${url}?token=${encodeURIComponent(Redacted.value(secret))}`
      yield* show(
        { url: link },
        Effect.andThen(
          line(`dashboard of ${operator.store}: ${Option.isSome(token) ? url : link}`, "bold"),
          hint(`${actions ? "" : "It only shows: --actions allows more. "}Ctrl-C ends it.`)
        )
      )
      return yield* Effect.never
    })), { connections })).pipe(Command.withDescription("Serves the dashboard of a store to browsers of this machine"))

export const commands = [dashboardCommand] as const
