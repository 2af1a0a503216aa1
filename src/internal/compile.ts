/**
 * What encodes and decodes the messages of a schema, compiled: for this schema and its parts alone.
 *
 * Effect's schema compiler makes functions of text for what a schema says of plain values, and walks through what it transforms.
 * Before it stand decoders of ours, for times, and for classes and structs that have them ({@link ./compiledStructs.ts}).
 *
 * What cannot be compiled is interpreted as before, and so is all but times where code cannot be made of text (a content
 * security policy without `unsafe-eval`, edge runtimes, node's `--disallow-code-generation-from-strings`). What a codec answers is
 * the same in any case, and why it refuses. Both modules of Effect are marked unstable, and the compiler is large: they are loaded
 * here, when they are asked for, and if they are not there, all is interpreted.
 */
import { Effect, Schema, SchemaAST, SchemaParser } from "effect"
import type * as SchemaCompiler from "effect/schema/SchemaCompiler"
import * as Structs from "./compiledStructs.ts"
import * as Times from "./compiledTimes.ts"

/** What has been compiled, or is being: stores are opened more than once. */
const compiled = new WeakMap<SchemaAST.AST, Promise<void>>()

/** Of a schema between messages and JSON. What it has decoded before stays as it is: this comes first. */
export const compile = (codec: SchemaAST.AST): Effect.Effect<void> =>
  Effect.promise(() => {
    const known = compiled.get(codec)
    if (known !== undefined) return known
    const compiling = enable(codec).catch(() => {})
    compiled.set(codec, compiling)
    return compiling
  })

const enable = async (codec: SchemaAST.AST): Promise<void> => {
  const compiler = await import("effect/schema/SchemaCompiler")
  const jit = canMakeCode() ? await import("effect/schema/SchemaJITCompiler") : undefined
  for (const ast of [codec, SchemaAST.flip(codec)]) {
    for (const node of nodesOf(ast)) {
      const decode = Times.decoderOf(node, compiler.invalid) ??
        (jit && Structs.decoderOf(node, compiler.invalid, jit.enable))
      if (decode !== undefined) compiler.set(node, withFastPath(compiler, node, decode))
    }
    jit?.enable(ast)
  }
}

const canMakeCode = (): boolean => {
  try {
    return globalThis.Function("return true")() === true
  } catch {
    return false
  }
}

/** The decoder of Effect, with one before it that answers `invalid` where it is for Effect's to say why. */
const withFastPath = (
  { missing }: typeof SchemaCompiler,
  ast: SchemaAST.AST,
  decode: SchemaCompiler.Decode
): SchemaCompiler.CompiledDecoder => {
  // A node of its own, which nothing was set for.
  const detailed = SchemaParser.decodeUnknownEffect(Schema.make<Schema.Codec<unknown>>(Structs.copyOf(ast)))
  return {
    decode,
    decodeEffect: (input, options) => input === missing ? Effect.succeed(missing) : detailed(input, options)
  }
}

/** All parts of a schema that decode, itself among them; not those that only say what a declaration is made of. */
const nodesOf = (root: SchemaAST.AST): ReadonlySet<SchemaAST.AST> => {
  const nodes = new Set<SchemaAST.AST>()
  const visit = (ast: SchemaAST.AST): void => {
    if (nodes.has(ast)) return
    nodes.add(ast)
    for (const { to } of ast.encoding ?? []) visit(to)
    if (!SchemaAST.isDeclaration(ast)) Structs.partsOf(ast).forEach(visit)
  }
  visit(root)
  return nodes
}
