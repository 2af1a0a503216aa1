/**
 * A backend whose personal fields are encrypted: what it is given is encrypted before it is stored, and what it reads is
 * decrypted. Everything above it sees values, everything below it ciphertext, and stores without personal fields have no such
 * thing between.
 *
 * - A value is encrypted under the key of its subject, and bound to the message's id and the field's place.
 * - What cannot be decrypted is told of the message alone (`unreadable`): the others of its page are read.
 * - A partitioner finds every personal field forgotten, so that what it says of a message never changes.
 * - Snapshots of folds, whose states may have values in them, are encrypted as a whole, under a key that is nobody's. Whenever a
 *   subject is forgotten, that key is too, and a new one is made: see `snapshots.ts`.
 *
 * **Writing and forgetting at the same time**
 *
 * In a transaction, the key that something is encrypted under stays until the transaction ends: `forget` waits. Elsewhere the
 * key is looked up right before the append, in a statement of its own; if the subject is forgotten between the two, what is appended is
 * forgotten with it, as if it had been written before.
 */
import { Array as Arr, Effect, Result } from "effect"
import type { Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { PersonalDataError, SerializationError } from "../errors.ts"
import { checkStreamName } from "../internal/checks.ts"
import type { PersonalPlaces } from "../internal/personalPaths.ts"
import { ciphertextPrefix, hasWritten, isWritten, writtenForgotten, writtenKnown } from "../Personal.ts"
import {
  type AggregatedStorage,
  type AppendItem,
  AppendOutcome,
  type Backend,
  type EncodedMessage,
  type EncodedParkedMessage,
  type EncodedStoredMessage,
  isScanned
} from "../Storage.ts"
import { type DataKey, decrypt, encrypt, type Encrypted, isEncrypted, nameOf, parse } from "./cipher.ts"
import { type Field, fieldsOf } from "./fields.ts"
import { isRefused, type Keys } from "./keys.ts"
import type { Snapshots } from "./snapshots.ts"

/** What a value is bound to. */
const boundTo = (messageId: string, { path }: Field): string => `${messageId} ${path}`

/** What is bound to the id of its message. */
type Content = Pick<EncodedMessage, "messageId" | "data">

/** A message, or why it cannot be written. */
type Encoded<A = EncodedMessage> = Result.Result<A, SerializationError>

export const make = (backend: Backend, places: PersonalPlaces, keys: Keys, snapshots: Snapshots): Backend => {
  /** Encrypts the personal fields of messages. */
  const encrypted = Effect.fnUntraced(function*<M extends Content>(
    messages: ReadonlyArray<M>
  ): Effect.fn.Return<ReadonlyMap<M, Encoded<M>>, SqlError> {
    const encoded = new Map<M, Encoded<M>>()
    const open: Array<Open<M>> = []
    const subjects = new Set<string>()
    for (const message of messages) {
      if (!hasWritten(message.data) && !message.data.includes(`"${ciphertextPrefix}`)) {
        encoded.set(message, Result.succeed(message))
        continue
      }
      const json = JSON.parse(message.data)
      const found = fieldsOf(places, json)
      const alike = found.find(({ value }) => isEncrypted(value))
      if (alike !== undefined) {
        encoded.set(message, Result.fail(looksEncrypted(message, alike)))
        continue
      }
      const fields = found.filter(({ value }) => isWritten(value) && value["~personal"] === "known")
      const nobody = fields.find(({ subject = "" }) => Result.isFailure(checkStreamName(subject)))
      if (nobody !== undefined) {
        encoded.set(message, refuse(message, new PersonalDataError({ reason: "noSubject", field: nobody.path })))
        continue
      }
      open.push({ message, json, fields })
      for (const { subject } of fields) if (subject !== undefined) subjects.add(subject)
    }
    if (open.length === 0) return encoded
    const found = yield* keys.toEncrypt(Array.from(subjects))
    yield* Effect.promise(() =>
      Promise.all(open.map(async (one) => encoded.set(one.message, await encryptAll(one, found))))
    )
    return encoded
  })

  const readable = Effect.fnUntraced(function*<Row extends Readable>(
    rows: ReadonlyArray<Row>
  ): Effect.fn.Return<ReadonlyArray<Row>, SqlError> {
    const jobs: Array<Job<Row>> = []
    const names = new Map<string, Encrypted>()
    const unreadable = new Map<Row, PersonalDataError>()
    for (const row of rows) {
      for (const field of fieldsOf(places, row.data)) {
        if (!isEncrypted(field.value)) continue
        const parsed = parse(field.value)
        if (Result.isFailure(parsed)) {
          unreadable.set(row, new PersonalDataError({ reason: "tampered", field: field.path }))
          continue
        }
        const name = nameOf(parsed.success)
        names.set(name, parsed.success)
        jobs.push({ row, field, name, encrypted: parsed.success })
      }
    }
    if (jobs.length > 0) {
      const found = yield* keys.find(names)
      yield* Effect.promise(() =>
        Promise.all(jobs.map(async ({ encrypted: value, field, name, row }) => {
          const key = found.get(name)
          const { container, key: at, path } = field
          if (key === undefined || isRefused(key)) unreadable.set(row, inField(key, path))
          else if (key === "forgotten") container[at] = { ...writtenForgotten }
          else {
            try {
              container[at] = { ...writtenKnown(JSON.parse(await decrypt(value, key, boundTo(row.messageId, field)))) }
            } catch {
              unreadable.set(row, new PersonalDataError({ reason: "tampered", field: path }))
            }
          }
        }))
      )
    }
    return unreadable.size === 0
      ? rows
      : rows.map((row) => unreadable.has(row) ? { ...row, unreadable: unreadable.get(row) } : row)
  })

  const readableParked = (
    entries: ReadonlyArray<EncodedParkedMessage>
  ): Effect.Effect<ReadonlyArray<EncodedParkedMessage>, SqlError> =>
    Effect.map(readable(entries.flatMap(({ stored }) => stored ?? [])), (rows) => {
      let at = 0
      return entries.map((entry) => entry.stored === undefined ? entry : { ...entry, stored: rows[at++] })
    })

  const readableIn = <Row extends EncodedStoredMessage, Page extends { readonly messages: ReadonlyArray<Row> }>(
    reading: Effect.Effect<Page & { readonly messages: ReadonlyArray<Row> }, SqlError>
  ) => Effect.flatMap(reading, (page) => Effect.map(readable(page.messages), (messages) => ({ ...page, messages })))

  const append: Backend["append"] = Effect.fnUntraced(function*(items, options) {
    const encoded = yield* encrypted(items.flatMap(({ messages }) => messages))
    const given = Arr.map(items, (item) => itemOf(item, encoded))
    const accepted = given.flatMap((item) => Result.isSuccess(item) ? [item.success] : [])
    const refusals = given.map((item) =>
      Result.isFailure(item) ? AppendOutcome.Refused({ error: item.failure }) : undefined
    )
    if (options.atomic && accepted.length < items.length) {
      const first = refusals.findIndex((refusal) => refusal !== undefined)
      return refusals.map((refusal, i) => i === first && refusal !== undefined ? refusal : AppendOutcome.Skipped())
    }
    const outcomes = Arr.isReadonlyArrayNonEmpty(accepted) ? yield* backend.append(accepted, options) : []
    let at = 0
    return refusals.map((refusal) => refusal ?? outcomes[at++] ?? AppendOutcome.Skipped())
  })

  const readStream: Backend["readStream"] = (query) =>
    Effect.flatMap(backend.readStream(query), (page) => {
      const { snapshot } = page
      if (snapshot === undefined || query.snapshot === undefined) return readableIn(Effect.succeed(page))
      return Effect.flatMap(
        snapshots.decrypt(query.snapshot, snapshot),
        (decrypted) =>
          readableIn(
            decrypted === undefined
              ? backend.readStream({ ...query, snapshot: undefined })
              : Effect.succeed({ ...page, snapshot: decrypted })
          )
      )
    })

  return {
    ...backend,
    append,
    readStream,
    readPattern: (query) => readableIn(backend.readPattern(query)),
    readTagged: (query) => readableIn(backend.readTagged(query)),
    readByIds: (messageIds) => Effect.flatMap(backend.readByIds(messageIds), readable),
    ends: (streams, tags, keysOfSnapshots = []) =>
      Effect.flatMap(backend.ends(streams, tags, keysOfSnapshots), (ends) =>
        Effect.map(
          Effect.forEach(ends.snapshots, (snapshot, i) => {
            const key = keysOfSnapshots[i]
            return snapshot === undefined || key === undefined ? Effect.undefined : snapshots.decrypt(key, snapshot)
          }),
          (decrypted) => ({ ...ends, snapshots: decrypted })
        )),
    saveSnapshot: (snapshot) =>
      Effect.flatMap(
        snapshots.encrypt(snapshot),
        (encryptedSnapshot) => encryptedSnapshot === undefined ? Effect.void : backend.saveSnapshot(encryptedSnapshot)
      ),
    schedule: (entry) =>
      Effect.flatMap(
        encrypted([entry.message]),
        (encoded) =>
          Result.match(encoded.get(entry.message) ?? Result.succeed(entry.message), {
            onFailure: Effect.fail,
            onSuccess: (message) => backend.schedule({ ...entry, message })
          })
      ),
    scheduled: (query) =>
      Effect.flatMap(
        backend.scheduled(query),
        ({ entries, more }) => Effect.map(readable(entries), (found) => ({ entries: found, more }))
      ),
    redact: (redactions) =>
      Effect.flatMap(encrypted(redactions), (encoded) =>
        Effect.flatMap(
          Effect.fromResult(Result.all(
            Arr.map(redactions, (redaction) => encoded.get(redaction) ?? Result.succeed(redaction))
          )),
          backend.redact
        )),
    aggregatedStream: (definition) =>
      Effect.map(backend.aggregatedStream(definition), (stream): AggregatedStorage => ({
        ...stream,
        readPartition: (query) => readableIn(stream.readPartition(query)),
        scan: (after, limit) =>
          Effect.map(stream.scan(after, limit), (answer) => {
            if (isScanned(answer)) { for (const { data } of answer.messages) hide(places, data) }
            return answer
          }),
        subscription: (name) =>
          Effect.map(stream.subscription(name), (subscribed) => ({
            ...subscribed,
            begin: (query) => readableIn(subscribed.begin(query)),
            read: (query) => readableIn(subscribed.read(query)),
            parked: (query) => Effect.flatMap(subscribed.parked(query), readableParked),
            requeued: (partition) =>
              Effect.flatMap(
                subscribed.requeued(partition),
                (entry) =>
                  entry === undefined
                    ? Effect.undefined
                    : Effect.map(readableParked([entry]), ([readableOne]) => readableOne)
              )
          }))
      }))
  }
}

/** A message whose fields are to be encrypted. */
interface Open<M> {
  readonly message: M
  readonly json: Schema.Json
  readonly fields: ReadonlyArray<Field>
}

type Readable = Pick<EncodedStoredMessage, "messageId" | "data" | "unreadable">

/** A value that is to be decrypted. */
interface Job<Row> {
  readonly row: Row
  readonly field: Field
  readonly name: string
  readonly encrypted: Encrypted
}

const encryptAll = async <M extends Content>(
  { fields, json, message }: Open<M>,
  keys: ReadonlyMap<string, DataKey | PersonalDataError>
): Promise<Encoded<M>> => {
  const encrypting: Array<() => Promise<void>> = []
  for (const field of fields) {
    const { container, key: at, subject, value } = field
    const key = keys.get(subject ?? "")
    if (key === undefined || isRefused(key)) {
      return refuse(message, inField(key, field.path))
    }
    const text = JSON.stringify(isWritten(value) ? value.value : value)
    encrypting.push(async () => {
      container[at] = await encrypt(key, boundTo(message.messageId, field), text)
    })
  }
  await Promise.all(encrypting.map((one) => one()))
  const data = JSON.stringify(json)
  return hasWritten(data)
    ? Result.fail(
      new SerializationError({
        operation: "serialize",
        messageId: message.messageId,
        reason: "a personal value stands where the schema declares none, so that it would not be encrypted"
      })
    )
    : Result.succeed({ ...message, data })
}

/** What is not personal, and would be taken for an encrypted value by whoever reads the message. */
const looksEncrypted = ({ messageId }: Content, { path }: Field): SerializationError =>
  new SerializationError({
    operation: "serialize",
    messageId,
    reason: `the text at ${path} begins with "${ciphertextPrefix}", as encrypted values do that may stand there`
  })

/** Why the key of a field cannot be had. A cause is copied by name: that of an error is not enumerable. */
const inField = (error: PersonalDataError | undefined, field: string): PersonalDataError =>
  new PersonalDataError({
    ...error,
    reason: error?.reason ?? "lost",
    ...error?.cause !== undefined && { cause: error.cause },
    field
  })

const refuse = ({ messageId }: Content, cause: PersonalDataError): Encoded<never> =>
  Result.fail(new SerializationError({ operation: "serialize", reason: cause.message, messageId, cause }))

/** An item whose messages are encrypted; or why the first one cannot be. */
const itemOf = (
  item: AppendItem,
  encoded: ReadonlyMap<EncodedMessage, Encoded>
): Result.Result<AppendItem, SerializationError> =>
  Result.map(
    Result.all(item.messages.map((message) => encoded.get(message) ?? Result.succeed(message))),
    (messages) => ({ ...item, messages })
  )

/** Whatever was known of it, and whoever may know it. */
const hide = (places: PersonalPlaces, data: Schema.Json): void => {
  for (const { container, isShared, key, value } of fieldsOf(places, data)) {
    if (isShared && !isEncrypted(value)) continue // what is not personal
    container[key] = { ...writtenForgotten }
  }
}
