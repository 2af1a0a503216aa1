/**
 * What encrypts the data keys of subjects: one wrapping key for all of them, from the configuration or in a key management service.
 *
 * Personal data is encrypted by a key of its subject, and that key is stored encrypted ("wrapped") by the wrapping key. So whoever
 * has the database alone can read nothing, and another wrapping key touches the stored keys, never the messages.
 *
 * **Another wrapping key**, while processes run:
 *
 * 1. Give all processes the new key behind the old one: `"2026:…,2027:…"`. The first one wraps; each unwraps what it has wrapped.
 * 2. Then give them the new one first, and run the store's `rewrapKeys`.
 * 3. Then take the old one away.
 */
import { type Config, Context, Effect, Layer, Redacted } from "effect"
import { Base64 } from "effect/encoding"
import { InvalidArgumentError, PersonalDataError } from "./errors.ts"

/** A data key, encrypted. */
export interface WrappedKey {
  /** Of the wrapping key; 1 to 255 characters. */
  readonly keyId: string
  /** Text of the service's own: at most 10,000 characters. */
  readonly data: string
}

/** Wraps and unwraps data keys. A key management service is made of these two. */
export interface Service {
  /** The id of the key that wraps. `rewrapKeys` wraps anew what others have wrapped. */
  readonly keyId: string
  /**
   * Encrypts a data key of 32 bytes. `boundTo` is no secret, and has to be given to `unwrap` again: the additional
   * authenticated data, or the encryption context, of the service.
   */
  readonly wrap: (dataKey: Uint8Array<ArrayBuffer>, boundTo: string) => Effect.Effect<WrappedKey, PersonalDataError>
  /** Fails with reason `wrappingKey` if the key is not there, or is another one, and `unavailable` if nobody can tell. */
  readonly unwrap: (wrapped: WrappedKey, boundTo: string) => Effect.Effect<Uint8Array<ArrayBuffer>, PersonalDataError>
}

/**
 * What encrypts the data keys of subjects. Stores whose schemas have personal fields (`Message.personal`) need it.
 *
 * **Example**
 *
 * ```ts
 * Customers.layer.pipe(Layer.provide(KeyEncryption.layerConfig(Config.Redacted("PERSONAL_DATA_KEYS"))))
 * ```
 */
export class KeyEncryption extends Context.Service<KeyEncryption, Service>()("effect-message-store/KeyEncryption") {}

type Key = Awaited<ReturnType<typeof globalThis.crypto.subtle.importKey>>

const algorithm = "AES-GCM"
const keyBytes = 32
const nonceBytes = 12

/** One wrapping key, or several: `id:key`, separated by commas, where `key` is 32 bytes in base64. */
const parse = Effect.fnUntraced(function*(text: string) {
  const keys = new Map<string, Key>()
  for (const part of text.split(",")) {
    const [, id, encoded = ""] = /^\s*([\w.-]{1,64}):([\w+/=]+)\s*$/.exec(part) ?? []
    const bytes = Base64.decode(encoded)
    // Nothing of the keys is told.
    if (id === undefined || bytes._tag === "Failure" || bytes.success.length !== keyBytes) {
      return yield* new InvalidArgumentError({
        argument: "keys",
        reason:
          "must be one or several of id:key, separated by commas: ids of 1 to 64 letters, digits, _, - and ., keys of 32 " +
          "bytes in base64"
      })
    }
    if (keys.has(id)) {
      return yield* new InvalidArgumentError({ argument: "keys", reason: `must not have the id "${id}" twice` })
    }
    keys.set(id, yield* Effect.promise(() => importKey(bytes.success.slice())))
  }
  return keys
})

const importKey = (bytes: Uint8Array<ArrayBuffer>): Promise<Key> =>
  globalThis.crypto.subtle.importKey("raw", bytes, algorithm, false, ["encrypt", "decrypt"])

const dataOf = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text)

/**
 * Wraps by keys that the process has: AES-256-GCM, with a random nonce for each data key.
 *
 * @internal
 */
export const make = Effect.fnUntraced(function*(
  text: Redacted.Redacted<string>
): Effect.fn.Return<Service, InvalidArgumentError> {
  const keys = yield* parse(Redacted.value(text))
  // There is at least one.
  const [keyId, current] = keys.entries().next().value as [string, Key]
  return {
    keyId,
    wrap: (dataKey, boundTo) =>
      Effect.promise(async () => {
        const iv = globalThis.crypto.getRandomValues(new Uint8Array(nonceBytes))
        const how = { name: algorithm, iv, additionalData: dataOf(boundTo) }
        const encrypted = new Uint8Array(await globalThis.crypto.subtle.encrypt(how, current, dataKey))
        const data = new Uint8Array(nonceBytes + encrypted.length)
        data.set(iv)
        data.set(encrypted, nonceBytes)
        return { keyId, data: Base64.encode(data) }
      }),
    unwrap: (wrapped, boundTo) => {
      const refused = (cause?: unknown) =>
        new PersonalDataError({
          reason: "wrappingKey",
          keyId: wrapped.keyId,
          ...(cause === undefined ? {} : { cause })
        })
      const key = keys.get(wrapped.keyId)
      const bytes = Base64.decode(wrapped.data)
      if (key === undefined || bytes._tag === "Failure") return Effect.fail(refused())
      const data = bytes.success.slice()
      return Effect.tryPromise({
        try: async () => {
          const how = { name: algorithm, iv: data.subarray(0, nonceBytes), additionalData: dataOf(boundTo) }
          return new Uint8Array(await globalThis.crypto.subtle.decrypt(how, key, data.subarray(nonceBytes)))
        },
        catch: refused
      })
    }
  }
})

/**
 * Wrapping keys that the process has, as text: `id:key`, several of them separated by commas, where `key` is 32 random bytes in
 * base64 (`openssl rand -base64 32`). The first one wraps.
 */
export const layer = (keys: Redacted.Redacted<string>): Layer.Layer<KeyEncryption, InvalidArgumentError> =>
  Layer.effect(KeyEncryption, make(keys))

/** The same, from the configuration. */
export const layerConfig = (
  config: Config.Config<Redacted.Redacted<string>>
): Layer.Layer<KeyEncryption, InvalidArgumentError | Config.ConfigError> =>
  Layer.effect(KeyEncryption, Effect.flatMap(config, make))

/** The text of a new wrapping key. It is shown nowhere else: without it, all that was encrypted under it is lost. */
export const generate = (id: string): Effect.Effect<Redacted.Redacted<string>> =>
  Effect.sync(() =>
    Redacted.make(`${id}:${Base64.encode(globalThis.crypto.getRandomValues(new Uint8Array(keyBytes)))}`)
  )
