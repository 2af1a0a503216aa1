/**
 * The laws of a fold, as property tests over messages generated from a schema.
 *
 * **Example**
 *
 * ```ts
 * FoldLaws.suite("flight", flight, FlightEvent)
 * ```
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Equal, Formatter, Predicate, Result, Schema } from "effect"
import { type Fold, snapshotOf } from "../Fold.ts"
import { stateCodec } from "../store/snapshots.ts"

/**
 * Registers the suite with Vitest: `evolve` changes neither the state nor the message that it is given; the same messages give
 * the same state; and, of a fold with snapshots, a snapshot taken anywhere and the rest of the messages give what all of
 * them give.
 *
 * @param name of the fold, before the name of each test
 * @param fold what is tested: a fold, or a decider
 * @param messages a schema that all messages generated from it have
 */
export const suite = <S, A>(name: string, fold: Fold<S, NoInfer<A>>, messages: Schema.Schema<A>): void => {
  const generated = Arbitrary.array(Arbitrary.schema(messages), { maxLength: 20 })
  const holds = (law: Law<S, A>) => ([given]: readonly [ReadonlyArray<A>]) => assert.isUndefined(law(fold, given))

  describe(`${name}: fold laws`, () => {
    it.prop("evolve changes neither states nor messages", [generated], holds(changesNothing))
    it.prop("the same messages give the same state", [generated], holds(isDetermined))
    if (snapshotOf(fold) === undefined) return
    it.prop("a snapshot and the rest give what all messages give", [generated], holds(survivesSnapshots))
  })
}

/** How messages break a law; undefined: they do not. */
type Law<S, A> = (fold: Fold<S, A>, messages: ReadonlyArray<A>) => string | undefined

const foldAll = <S, A>(fold: Fold<S, A>, messages: ReadonlyArray<A>, from: S = fold.initial): S =>
  messages.reduce((state, message) => fold.evolve(state, message), from)

/**
 * States and messages are frozen: plain objects, arrays, instances of schema classes, and maps and sets, deep down.
 *
 * @internal
 */
export const changesNothing = <S, A>(fold: Fold<S, A>, messages: ReadonlyArray<A>): string | undefined => {
  const changed = Result.try(() => {
    freeze(fold.initial)
    messages.forEach(freeze)
    foldAll({ ...fold, evolve: (state, message) => freeze(fold.evolve(state, message)) }, messages)
  })
  return Result.isFailure(changed) ? `it fails on a frozen state: ${String(changed.failure)}` : undefined
}

/**
 * @internal
 */
export const isDetermined = <S, A>(fold: Fold<S, A>, messages: ReadonlyArray<A>): string | undefined => {
  const [first, second] = [foldAll(fold, messages), foldAll(fold, messages)]
  return Equal.equals(first, second) ? undefined : `${Formatter.format(first)}, and then ${Formatter.format(second)}`
}

/**
 * @internal
 */
export const survivesSnapshots = <S, A>(fold: Fold<S, A>, messages: ReadonlyArray<A>): string | undefined => {
  const snapshot = snapshotOf(fold)
  if (snapshot === undefined) return undefined
  const codec = stateCodec(snapshot.schema)
  const all = foldAll(fold, messages)
  for (let at = 0; at <= messages.length; at++) {
    const kept = Result.flatMap(codec.encode(foldAll(fold, messages.slice(0, at))), codec.decode)
    if (Result.isFailure(kept)) return `behind ${at} messages the state cannot be kept: ${String(kept.failure)}`
    const state = foldAll(fold, messages.slice(at), kept.success)
    if (!Equal.equals(state, all)) {
      return `kept behind ${at} messages it comes to ${Formatter.format(state)}, and not to ${Formatter.format(all)}`
    }
  }
  return undefined
}

/** What has a hidden state of its own (dates, effect's data) is left as it is. */
const freeze = <A>(value: A): A => {
  if (!Predicate.isObject(value) && !Array.isArray(value)) return value
  if (Object.isFrozen(value)) return value
  if (value instanceof Map || value instanceof Set) {
    for (const method of ["set", "add", "delete", "clear"]) {
      if (method in value) Object.defineProperty(value, method, { value: refuse })
    }
    for (const [key, each] of value.entries()) {
      freeze(key)
      freeze(each)
    }
    return Object.freeze(value)
  }
  const prototype = Object.getPrototypeOf(value)
  const isPlain = prototype === null || prototype === Object.prototype || Array.isArray(value)
  if (!isPlain && !Schema.isSchema(prototype.constructor)) return value
  Object.freeze(value)
  for (const key of Reflect.ownKeys(value)) freeze((value as Readonly<Record<PropertyKey, unknown>>)[key])
  return value
}

const refuse = () => {
  throw new TypeError("Cannot change a map or a set of a state")
}
