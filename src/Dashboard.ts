/**
 * A dashboard of a store, for a browser: what is written, what waits and why, what led to what; and what is done about it.
 *
 * **Guarantees**
 *
 * - It sees and does what {@link Operator} sees and does, and nothing else: without the application's schemas and handlers.
 * - It only shows, unless `readOnly: false` is said: then there are no actions at the server either.
 * - What messages hold becomes no part of a page's markup. A page loads nothing from another host, and runs no script but the
 *   dashboard's own.
 * - Every list is paged, every statement ends within the operator's `statementTimeout`, and no more than four pages are made at
 *   the same time. All who look on share one poll, which rests when nobody does.
 * - Every page works without JavaScript, and its URL says all that it shows: links can be shared.
 *
 * **Gotchas**
 *
 * It has no users: put it behind the authentication of your application, or give it a `token`.
 */
import { type Duration, Effect, Layer, Option, Redacted } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import * as Routes from "./dashboard/routes.ts"
import { loopbackNames } from "./dashboard/security.ts"
import type { InvalidArgumentError } from "./errors.ts"
import { checkDuration, invalid } from "./internal/checks.ts"
import { Operator } from "./Operator.ts"

/** Where a dashboard is, and who may do what there. */
export interface DashboardOptions {
  /**
   * Where it is mounted: the path that browsers see, of letters, digits and `-._~`, in one or several parts. Default
   * `"/dashboard"`; `"/"` is the whole server.
   */
  readonly path?: string | undefined
  /**
   * Whether it only shows. Default `true`. With `false`, whoever may look may also pause, requeue, discard, reset, rebuild,
   * promote and cancel.
   */
  readonly readOnly?: boolean | undefined
  /**
   * What a browser has to give before it sees anything: 16 characters or more. For where the application has no
   * authentication of its own. It is asked for by a form, or taken from a URL once (`?token=…`); then a cookie lasts for 12
   * hours, in all processes that know the token. Default: none.
   */
  readonly token?: Redacted.Redacted | undefined
  /**
   * The names of the hosts that it may be asked by, as browsers have them: others are refused, so that a page of somebody
   * else whose name is made to lead here (DNS rebinding) reads nothing. Default: on a server that listens on loopback,
   * `localhost`, `127.0.0.1`, `[::1]` and its own address; on others, any.
   */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** How often it looks while somebody looks on: 100 milliseconds or more. Default 1 second, less often where a look takes long. */
  readonly pollInterval?: Duration.Input | undefined
}

const check = Effect.fnUntraced(function*(
  { path = "/dashboard", pollInterval = "1 second", token }: DashboardOptions
) {
  if (!/^\/$|^(\/(?!\.{1,2}(\/|$))[\w.~-]+)+$/.test(path)) {
    return yield* Effect.fromResult(
      invalid("path", "must be / or parts as /admin/dashboard, without a slash at its end")
    )
  }
  if (token !== undefined && Redacted.value(token).length < 16) {
    return yield* Effect.fromResult(invalid("token", "must have 16 characters or more"))
  }
  const interval = yield* Effect.fromResult(checkDuration("pollInterval", pollInterval, {
    minimum: 100,
    maximum: Number.MAX_SAFE_INTEGER,
    reason: "must be 100 milliseconds or more, and finite"
  }))
  return { mount: path === "/" ? "" : path, interval }
})

/** The names of the server around it, if one is known, and listens on loopback. */
const namesOnLoopback = Effect.map(
  Effect.serviceOption(HttpServer.HttpServer),
  Option.match({
    onNone: () => undefined,
    onSome: ({ address }) => {
      if (address._tag !== "InetAddressV4" && address._tag !== "InetAddressV6") return undefined
      const [, name] = /^http:\/\/(localhost|127\.[\d.]+|\[::1\])/.exec(HttpServer.formatAddress(address)) ?? []
      return name === undefined ? undefined : [...loopbackNames, name]
    }
  })
)

/**
 * Mounts the dashboard of an operator's store on the router of any Effect HTTP server. Fails with an `InvalidArgumentError` if
 * an option is wrong.
 *
 * **Example**
 *
 * ```ts
 * const Routes = Layer.mergeAll(
 *   HttpRouter.add("GET", "/", HttpServerResponse.text("the application")),
 *   Dashboard.layer({ path: "/operator", readOnly: false }).pipe(Layer.provide(Operator.layer("orders")))
 * )
 * ```
 */
export const layer = (
  options: DashboardOptions = {}
): Layer.Layer<never, InvalidArgumentError, HttpRouter.HttpRouter | Operator> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const { interval, mount } = yield* check(options)
    const router = yield* HttpRouter.HttpRouter
    const hosts = options.hosts ?? (yield* namesOnLoopback)
    const handle = yield* Routes.make(yield* Operator, {
      mount,
      canAct: options.readOnly === false,
      token: options.token,
      hosts,
      pollInterval: interval
    })
    yield* (mount === "" ? router.add("*", "*", handle) : router.prefixed(mount).add("*", "/*", handle))
  }))
