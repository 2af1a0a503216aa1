/**
 * Personal data in messages: known, or forgotten.
 *
 * A field that is made by `Message.personal` has a `Personal` value, so that whoever reads it deals with both. What is known prints
 * as `<redacted>`, to strings, to JSON, in logs and errors: it is taken out by `value` and by the functions of this module, and by nothing else.
 */
import {
  Effect,
  Equal,
  Hash,
  Inspectable,
  Option,
  Redactable,
  Schema,
  SchemaGetter,
  SchemaIssue,
  SchemaParser
} from "effect"

/** What somebody has told, or was told of somebody. */
export type Personal<A> = Known<A> | Forgotten

const shown = "<redacted>"

/** So that nobody can try which value has a tag. */
const salt = globalThis.crypto.randomUUID()

/** A personal value that is known. */
export class Known<out A> implements Equal.Equal {
  readonly _tag = "Known"
  // Private: neither a spread nor a loop over its properties finds it.
  readonly #value: A

  constructor(value: A) {
    this.#value = value
  }

  get value(): A {
    return this.#value
  }

  [Equal.symbol](that: Equal.Equal): boolean {
    return that instanceof Known && Equal.equals(this.value, that.value)
  }

  [Hash.symbol](): number {
    return Hash.hash(this.value)
  }

  /**
   * Assertions that compare by properties (of node, chai, vitest) find none here, but they look at this tag: values that differ have
   * other ones. It tells nothing of the value, and is another one in each process.
   */
  get [Symbol.toStringTag](): string {
    return `Known#${Hash.string(`${salt} ${Hash.hash(this.#value)}`).toString(16)}`
  }

  [Redactable.symbolRedactable](): string {
    return shown
  }

  [Inspectable.NodeInspectSymbol](): string {
    return shown
  }

  toJSON(): string {
    return shown
  }

  toString(): string {
    return shown
  }
}

/** A personal value whose subject was forgotten: nobody can read it any more. */
export class Forgotten {
  readonly _tag = "Forgotten"

  toJSON(): string {
    return this.toString()
  }

  toString(): string {
    return "<forgotten>"
  }

  [Inspectable.NodeInspectSymbol](): string {
    return this.toString()
  }
}

/** A value that is known. */
export const known = <A>(value: A): Known<A> => new Known(value)

/** A value that is forgotten. */
export const forgotten: Forgotten = new Forgotten()

/** Whether something is a personal value. */
export const isPersonal = (value: unknown): value is Personal<unknown> =>
  value instanceof Known || value instanceof Forgotten

/**
 * Deals with both.
 *
 * **Example**
 *
 * ```ts
 * Personal.match(customer.email, {
 *   Known: (email) => sendMail(email),
 *   Forgotten: () => Effect.void
 * })
 * ```
 */
export const match = <A, B, C = B>(
  personal: Personal<A>,
  cases: { readonly Known: (value: A) => B; readonly Forgotten: () => C }
): B | C => personal._tag === "Known" ? cases.Known(personal.value) : cases.Forgotten()

/** The value, or another one if it is forgotten. */
export const getOrElse = <A, B>(personal: Personal<A>, orElse: () => B): A | B =>
  personal._tag === "Known" ? personal.value : orElse()

/** The value, if it is known. */
export const toOption = <A>(personal: Personal<A>): Option.Option<A> =>
  personal._tag === "Known" ? Option.some(personal.value) : Option.none()

/** Another value in its place. */
export const map = <A, B>(personal: Personal<A>, change: (value: A) => B): Personal<B> =>
  personal._tag === "Known" ? known(change(personal.value)) : personal

/** The schema of a personal value; see {@link schema}. */
export interface PersonalSchema<S extends Schema.Constraint>
  extends Schema.declareConstructor<Personal<S["Type"]>, Personal<S["Encoded"]>, readonly [S]>
{
  readonly "Rebuild": PersonalSchema<S>
}

/** The field of an object that stands for a personal value in JSON: what it is, beside the value. */
const kind = "~personal"

/**
 * What an encrypted value begins with, which is a string where it stands in stored JSON. The number is that of the form.
 *
 * @internal
 */
export const ciphertextPrefix = "~personal:"

/**
 * JSON in which a value is written out that is known: what is encrypted before it is stored.
 *
 * @internal
 */
export interface Written {
  readonly [kind]: "known" | "forgotten"
  readonly value?: Schema.Json
}

/** @internal */
export const isWritten = (json: unknown): json is Written =>
  typeof json === "object" && json !== null && Object.hasOwn(json, kind)

/** @internal */
export const writtenKnown = (json: Schema.Json): Written => ({ [kind]: "known", value: json })

/** @internal */
export const writtenForgotten: Written = { [kind]: "forgotten" }

/**
 * Whether JSON text has a value that is written out.
 *
 * @internal
 */
export const hasWritten = (text: string): boolean => text.includes(`"${kind}":"known"`)

/** Messages of checks may have values in them: what an issue tells of the value is left out. */
const hidden = (message: string) => new SchemaIssue.InvalidValue({ message })
const isNoValue = () => hidden("a personal value of another type")

/**
 * Marks schemas of personal values that nobody encrypts.
 *
 * @internal
 */
export const plainAnnotation = "effect-message-store/personal/plain"

/**
 * The schema of personal values elsewhere than in messages: in the state of a fold that has snapshots, or in the answer of a web
 * API. It encrypts nothing, and what is known is written out where it is encoded: stores refuse schemas of messages that have it.
 * In messages `Message.personal` takes its place.
 */
export const schema = <S extends Schema.Constraint>(of: S): PersonalSchema<S> =>
  Schema.declareConstructor<Personal<S["Type"]>, Personal<S["Encoded"]>>()(
    [of],
    ([codec]) => {
      const decode = SchemaParser.decodeUnknownEffect(codec)
      return (input, ast, options) => {
        if (!isPersonal(input)) return Effect.fail(new SchemaIssue.InvalidType(ast))
        return input._tag === "Forgotten"
          ? Effect.succeed(input)
          : Effect.mapBothEager(decode(input.value, options), { onSuccess: known, onFailure: isNoValue })
      }
    },
    {
      [plainAnnotation]: true,
      expected: "Personal",
      toCodecJson: ([encoded]) => {
        const codec = Schema.toCodecJson(encoded)
        const decode = SchemaParser.decodeUnknownEffect(codec)
        const encode = SchemaParser.encodeUnknownEffect(codec)
        return Schema.link<Personal<S["Encoded"]>>()(Schema.Json, {
          decode: SchemaGetter.transformEffect((
            json,
            options
          ): Effect.Effect<Personal<S["Encoded"]>, SchemaIssue.Issue> => {
            if (typeof json === "string" && json.startsWith(ciphertextPrefix)) {
              return Effect.fail(hidden("an encrypted value: only its store decrypts it"))
            }
            if (isWritten(json) && json[kind] === "forgotten") return Effect.succeed(forgotten)
            // What is neither was stored before the field was personal, or by somebody who does not know that it is. Null is what
            // stands beside a personal value (`Schema.NullOr(Message.personal(…))`), or in place of an optional one.
            const plain = isWritten(json) ? json.value : json ?? undefined
            return Effect.mapBothEager(decode(plain, options), { onSuccess: known, onFailure: isNoValue })
          }),
          encode: SchemaGetter.transformEffect((personal, options): Effect.Effect<Schema.Json, SchemaIssue.Issue> =>
            personal._tag === "Forgotten"
              ? Effect.succeed({ ...writtenForgotten })
              : Effect.mapBothEager(encode(personal.value, options), {
                onSuccess: (json) => ({ ...writtenKnown(json) }),
                onFailure: isNoValue
              })
          )
        })
      },
      toEquivalence: ([equivalence]) => (a, b) =>
        a._tag === "Known" && b._tag === "Known" ? equivalence(a.value, b.value) : a._tag === b._tag
    }
  ) as never // with itself as what it is rebuilt to
