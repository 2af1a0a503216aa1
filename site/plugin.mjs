// The reference leaves out what a class only inherits from Effect: its constructor, and what that returns.
import { Converter, ReflectionKind } from "typedoc"

/** @param {import("typedoc").Application} app */
export const load = (app) => {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, (context) => {
    for (const reflection of context.project.getReflectionsByKind(ReflectionKind.Constructor)) {
      if (reflection.isDeclaration() && reflection.inheritedFrom !== undefined) {
        context.project.removeReflection(reflection)
      }
    }
  })
}
