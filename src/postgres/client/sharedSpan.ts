/** Spans of statements that several fibers share. */
import { Effect, Tracer } from "effect"

/** The span of a statement. */
export interface Shared {
  readonly name: string
  readonly attributes: Readonly<Record<string, unknown>>
}

/** A statement of several fibers has a span of its own, linked to theirs; that of one is part of its own. */
export const sharedSpan = <A, E, R>(
  statement: Effect.Effect<A, E, R>,
  shared: () => Shared,
  of: ReadonlyArray<{ readonly span: Tracer.AnySpan | undefined }>
): Effect.Effect<A, E, R> => {
  if (of.length > 1) {
    const { attributes, name } = shared()
    return Effect.withSpan(statement, name, {
      kind: "client",
      root: true,
      attributes,
      links: of.flatMap(({ span }) => span === undefined ? [] : [{ span, attributes: {} }]),
      captureStackTrace: false
    })
  }
  const [only] = of
  return only?.span === undefined ? statement : Effect.provideService(statement, Tracer.ParentSpan, only.span)
}
