/** Spans of statements that several fibers share. */
import { Effect, Tracer } from "effect"

/** A statement of several fibers has a span of its own, linked to theirs; that of one is part of its own. `counted` names what they are. */
export const sharedSpan = <A, E, R>(
  statement: Effect.Effect<A, E, R>,
  name: string,
  counted: string,
  of: ReadonlyArray<{ readonly span: Tracer.AnySpan | undefined }>
): Effect.Effect<A, E, R> => {
  if (of.length > 1) {
    return Effect.withSpan(statement, name, {
      root: true,
      attributes: { [counted]: of.length },
      links: of.flatMap(({ span }) => span === undefined ? [] : [{ span, attributes: {} }]),
      captureStackTrace: false
    })
  }
  const [only] = of
  return only?.span === undefined ? statement : Effect.provideService(statement, Tracer.ParentSpan, only.span)
}
