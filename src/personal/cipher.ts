/**
 * Encrypts values: AES-256-GCM (NIST SP 800-38D) by WebCrypto, with a random nonce of 96 bits for each value. Under one key no more
 * than 2^32 values should be encrypted.
 *
 * What is stored is `~personal:1:` and base64 of
 *
 * | bytes | |
 * | --- | --- |
 * | 16 | the id of the data key, a UUID |
 * | 4 | its generation, big-endian |
 * | 12 | the nonce |
 * | the rest | the ciphertext, and the tag of 16 bytes |
 *
 * Additional authenticated data is what the value is bound to: the message's id, and the way to the field.
 */
import { Result } from "effect"
import { Base64 } from "effect/encoding"
import { ciphertextPrefix } from "../Personal.ts"

/** A key of WebCrypto's. */
export type Key = Awaited<ReturnType<typeof globalThis.crypto.subtle.importKey>>

/** A data key, and what names it. */
export interface DataKey extends KeyName {
  readonly key: Key
}

/** Names a data key: the id of its subject, and which of its keys it is. */
export interface KeyName {
  readonly id: string
  readonly generation: number
}

/** An encrypted value, taken apart. */
export interface Encrypted extends KeyName {
  readonly nonce: Uint8Array<ArrayBuffer>
  readonly data: Uint8Array<ArrayBuffer>
}

export const nameOf = ({ generation, id }: KeyName): string => `${id}:${generation}`

const algorithm = "AES-GCM"
const prefix = `${ciphertextPrefix}1:`
const keyBytes = 32
const idBytes = 16
const nonceBytes = 12
const headBytes = idBytes + 4 + nonceBytes
const tagBytes = 16

export const isEncrypted = (value: unknown): value is string =>
  typeof value === "string" && value.startsWith(ciphertextPrefix)

/** Fails for what no version of this library that is known here has written. */
export const parse = (text: string): Result.Result<Encrypted, void> => {
  if (!text.startsWith(prefix)) return Result.failVoid
  const decoded = Base64.decode(text.slice(prefix.length))
  if (Result.isFailure(decoded) || decoded.success.length < headBytes + tagBytes) return Result.failVoid
  const bytes = decoded.success as Uint8Array<ArrayBuffer> // a fresh one
  return Result.succeed({
    id: toId(bytes),
    generation: new DataView(bytes.buffer, bytes.byteOffset).getUint32(idBytes),
    nonce: bytes.subarray(idBytes + 4, headBytes),
    data: bytes.subarray(headBytes)
  })
}

/** The random source is WebCrypto's in any case: a nonce that comes back gives the key away. */
export const encrypt = async (by: DataKey, boundTo: string, text: string): Promise<string> => {
  const nonce = globalThis.crypto.getRandomValues(new Uint8Array(nonceBytes))
  const how = { name: algorithm, iv: nonce, additionalData: encoder.encode(boundTo) }
  const encrypted = new Uint8Array(await globalThis.crypto.subtle.encrypt(how, by.key, encoder.encode(text)))
  const bytes = new Uint8Array(headBytes + encrypted.length)
  writeId(by.id, bytes)
  new DataView(bytes.buffer).setUint32(idBytes, by.generation)
  bytes.set(nonce, idBytes + 4)
  bytes.set(encrypted, headBytes)
  return prefix + Base64.encode(bytes)
}

/** Rejects what was changed, or is bound to something else. */
export const decrypt = async ({ data, nonce }: Encrypted, key: Key, boundTo: string): Promise<string> => {
  const how = { name: algorithm, iv: nonce, additionalData: encoder.encode(boundTo) }
  return decoder.decode(await globalThis.crypto.subtle.decrypt(how, key, data))
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** The bytes of a new data key. */
export const newKey = (): Uint8Array<ArrayBuffer> => globalThis.crypto.getRandomValues(new Uint8Array(keyBytes))

/** Cannot be taken out again. */
export const importKey = (bytes: Uint8Array<ArrayBuffer>): Promise<Key> =>
  globalThis.crypto.subtle.importKey("raw", bytes, algorithm, false, ["encrypt", "decrypt"])

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

const toId = (bytes: Uint8Array): string => {
  let digits = ""
  for (let i = 0; i < idBytes; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) digits += "-"
    digits += hex[bytes[i] ?? 0]
  }
  return digits
}

const writeId = (id: string, bytes: Uint8Array): void => {
  const digits = id.replaceAll("-", "")
  for (let i = 0; i < idBytes; i++) bytes[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16)
}
