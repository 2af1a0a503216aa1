/** A dashboard that answers requests in this process, and tells what it asked the database meanwhile. */
import { Context, Effect, Layer, type Scope, Tracer } from "effect"
import { Operator } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter } from "effect/http"

/** Handles web requests until the scope closes. */
export const handlerOf = (operator: Operator.OperatorService, options: Dashboard.DashboardOptions) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        HttpRouter.toWebHandler(
          Layer.provide(Layer.orDie(Dashboard.layer(options)), Layer.succeed(Operator.Operator, operator)),
          { disableLogger: true }
        )
      ),
      ({ dispose }) => Effect.promise(dispose)
    ),
    ({ handler }) => handler
  )

/** What an answer took. */
export interface Answered {
  readonly status: number
  readonly body: string
  readonly milliseconds: number
  /** The statements of the request, in their order. */
  readonly statements: ReadonlyArray<string>
}

/** Asks it for a page. */
export const ask = (
  handler: (request: Request, context?: Context.Context<never>) => Promise<Response>,
  path: string
): Effect.Effect<Answered> =>
  Effect.promise(async () => {
    const statements: Array<string> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        const attribute = span.attribute.bind(span)
        span.attribute = (key, value) => {
          if (key === "db.query.text") statements.push(String(value))
          attribute(key, value)
        }
        return span
      }
    })
    const began = performance.now()
    const response = await handler(
      new Request(`http://localhost${path}`, { redirect: "manual" }),
      Context.make(Tracer.Tracer, tracer) as Context.Context<never> // it has its default elsewhere
    )
    const body = await response.text()
    return { status: response.status, body, milliseconds: performance.now() - began, statements }
  })

/** The operator of a store by its name, as the command line has it. */
export const operatorOf = (store: string, options?: Operator.OperatorOptions) =>
  Effect.map(
    Effect.flatMap(
      Effect.scope,
      (scope: Scope.Scope) => Layer.buildWithScope(Layer.fresh(Operator.layer(store, options)), scope)
    ),
    (context) => Context.get(context, Operator.Operator)
  )
