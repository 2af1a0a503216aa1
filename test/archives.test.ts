/** Archives on PostgreSQL: what is stored keeps every digit, and an import that is killed goes on beside those who write. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, FileSystem, Layer, Stream } from "effect"
import { Archive, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { type ChildProcess, fork } from "node:child_process"
import * as path from "node:path"
import { Noted } from "../src/testing/fixture.ts"
import { place, until } from "./support/processes.ts"
import { Done, stream, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

class Copies extends MessageStore.Service<Copies>()("test/Copies", { name: "copies", schema: Done }) {}
class Binary extends MessageStore.Service<Binary>()("test/Binary", { name: "bin", schema: Done, payload: "jsonb" }) {}
class Notes extends MessageStore.Service<Notes>()("test/Notes", { name: "notes", schema: Noted }) {}

const copy = (from: Archive.Archive, to: Archive.Archive) => Stream.runDrain(to.import(from.export()))

describe("PostgreSQL archives", () => {
  test("keep the JSON and the times of whoever wrote them, digit by digit", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const copies = yield* Effect.provide(Copies, yield* Layer.build(Copies.layer))
      const binary = yield* Effect.provide(Binary, yield* Layer.build(Binary.layer))
      const texts = [
        "{\"n\": 1e400, \"m\":-0.0, \"o\":12345678901234567890.12345678901234567890}",
        "{ \"a\" :\t1,\n\r\n \"b\":[ ],\n\"a\": 1 }",
        "{\"text\":\"\\u00e9\u2028\\n \u{1f642}\",\",\\\"metadata\\\":\":{}}",
        "[1.10]",
        "\"text\"",
        "null"
      ]
      for (const [i, text] of texts.entries()) {
        yield* sql`select depeche_write_message_work(${globalThis.crypto.randomUUID()}::uuid, ${`s-${
          i % 2
        }`}, ${text}::json)`
      }
      yield* work.write("s-1", new Done({ number: 1 }), { metadata: { n: 1e300 } })
      yield* sql`update depeche_msgs_work set occurred_at = '0044-03-15 12:00:00.000001 BC' where global_position = 1`
      yield* sql`update depeche_msgs_work set occurred_at = '12026-03-15 12:00:00.1' where global_position = 2`
      // Whatever the session is set to.
      yield* sql`set timezone to 'Asia/Kathmandu'`
      yield* sql`set datestyle to 'German, DMY'`

      const rows = (name: string, message = "replace(replace(message::text, chr(10), ' '), chr(13), ' ')") =>
        sql`select message_id, stream, version, ${
          sql.literal(message)
        } as message, metadata::text as metadata, recorded_at::text as recorded,
          added_at::text as added, occurred_at::text as occurred
          from ${sql(`depeche_msgs_${name}`)} order by global_position`
      yield* copy(Archive.of(work), Archive.of(copies))
      assert.lengthOf(yield* rows("copies"), 7)
      assert.deepStrictEqual(yield* rows("copies"), yield* rows("work"))
      yield* copy(Archive.of(copies), Archive.of(binary))
      const asBinary = (name: string) => rows(name, "message::jsonb::text")
      assert.deepStrictEqual(yield* asBinary("bin"), yield* asBinary("work"))
      yield* sql`truncate depeche_msgs_copies`
      yield* copy(Archive.of(binary), Archive.of(copies))
      assert.deepStrictEqual(yield* asBinary("copies"), yield* asBinary("work"))
    }))

  test("have messages of any size, a few at a time", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const copies = yield* Effect.provide(Copies, yield* Layer.build(Copies.layer))
      const notes = yield* Effect.provide(Notes, yield* Layer.build(Notes.layer))
      for (const size of [8 * 1024 * 1024 - 200, 10, 5_000_000, 100_000]) {
        yield* notes.write("large", new Noted({ text: "ä".repeat(size / 2) }))
      }
      const pieces = yield* Stream.runCollect(Archive.of(notes).export())
      assert.lengthOf(pieces, 4)
      yield* Stream.runDrain(Archive.of(copies).import(Stream.encodeText(Stream.fromIterable(pieces))))
      const sizes = (name: string) =>
        sql`select md5(message::text) as hash from ${sql(`depeche_msgs_${name}`)} order by version`
      assert.deepStrictEqual(yield* sizes("copies"), yield* sizes("notes"))
    }))

  test("say which message the store refuses", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const binary = yield* Effect.provide(Binary, yield* Layer.build(Binary.layer))
      for (let i = 0; i < 20; i++) {
        const text = i === 13 ? "{\"text\":\"\\u0000\"}" : "{}"
        yield* sql`select depeche_write_message_work(${globalThis.crypto.randomUUID()}::uuid, 's', ${text}::json)`
      }
      const error = yield* Effect.flip(copy(Archive.of(work), Archive.of(binary)))
      assert.deepInclude({ ...error }, { _tag: "ArchiveConflictError", reason: "refused", line: 15, version: 14 })
      assert.include(error.message, "unsupported Unicode escape sequence")
      assert.strictEqual((yield* binary.head("s")).version, 13)
    }))

  test("in files are whole, or not there", () =>
    Effect.gen(function*() {
      const work = yield* Work
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped()
      yield* work.write("s", Arr.makeBy(3000, (number) => new Done({ number })))
      const archive = Archive.of(work)
      const [plain, compressed] = [path.join(directory, "a.ndjson"), path.join(directory, "a.ndjson.gz")]
      for (const file of [plain, compressed]) {
        yield* archive.export().pipe(Archive.toFile(file))
        assert.deepInclude(yield* Archive.verify(Archive.fromFile(file)), { messages: 3000 })
      }
      assert.isBelow(Number((yield* files.stat(compressed)).size) * 3, Number((yield* files.stat(plain)).size))

      // What fails leaves the file that was there.
      for (const file of [plain, compressed]) {
        const failing = Stream.concat(Stream.take(archive.export(), 1), Stream.fail("out of order"))
        assert.strictEqual(yield* Effect.flip(Archive.toFile(file)(failing)), "out of order")
        assert.deepInclude(yield* Archive.verify(Archive.fromFile(file)), { messages: 3000 })
      }
      assert.deepStrictEqual((yield* files.readDirectory(directory)).toSorted(), ["a.ndjson", "a.ndjson.gz"])

      const bytes = yield* files.readFile(compressed)
      yield* files.writeFile(compressed, bytes.slice(0, bytes.length / 2))
      const error = yield* Effect.flip(Archive.verify(Archive.fromFile(compressed)))
      assert.strictEqual(error._tag, "PlatformError")
      assert.include(error.message, compressed)
      const missing = yield* Effect.flip(Archive.verify(Archive.fromFile(path.join(directory, "b"))))
      assert.strictEqual(missing._tag, "PlatformError")
    }).pipe(Effect.provide(NodeServices.layer)))

  test("of a store that is not there are refused", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(Archive.open("nowhere")))._tag, "SetupError")
      assert.strictEqual((yield* Effect.flip(Archive.open("no where")))._tag, "InvalidNameError")
    }))

  test("go in whole, though the process that imports them is killed while others write", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const files = yield* FileSystem.FileSystem
      const file = path.join(yield* files.makeTempDirectoryScoped(), "work.ndjson.gz")
      const elsewhere = yield* Effect.provide(Work, yield* Layer.build(Layer.fresh(Work.layerMemory)))
      const total = 6000
      yield* Effect.forEach(
        Arr.chunksOf(Arr.makeBy(total, (number) => new Done({ number })), 40),
        (messages, n) => elsewhere.write(`archived-${n % 30}`, messages)
      )
      yield* Archive.of(elsewhere).export().pipe(Archive.toFile(file))
      const at = yield* place
      let told = 0
      let code: number | null | undefined
      const start = Effect.acquireRelease(
        Effect.sync((): ChildProcess => {
          code = undefined
          const child = fork(path.join(import.meta.dirname, "support/archiveProcess.ts"), [
            JSON.stringify({ ...at, file })
          ], {
            execArgv: ["--conditions=@effect-message-store/source"],
            stdio: ["ignore", "ignore", "inherit", "ipc"]
          })
          child.on("message", (progress) => {
            told = (progress as Archive.ImportProgress).messages
          })
          child.once("exit", (exit) => {
            code = exit
          })
          return child
        }),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )

      // Others write meanwhile, to streams of their own, and somebody projects.
      const aggregated = yield* stream(4)
      let written = 0
      yield* Effect.forkScoped(aggregated.projector.run({ pollInterval: "100 millis" }))
      const writing = yield* Effect.forkScoped(Effect.forever(
        Effect.tap(work.write(`own-${written % 3}`, new Done({ number: -1 })), () => Effect.sync(() => written++))
      ))
      for (const seen of [1000, 3000]) {
        told = 0
        const child = yield* start
        yield* until(`${seen} are in`, Effect.sync(() => told >= seen), 60)
        child.kill("SIGKILL")
        yield* until("it has ended", Effect.sync(() => code !== undefined))
      }
      yield* start
      yield* until("it has ended", Effect.sync(() => code !== undefined), 60)
      assert.strictEqual(code, 0)
      assert.strictEqual(told, total)
      yield* Effect.sync(() => writing.interruptUnsafe())

      const copied = (archive: Archive.Archive) =>
        archive.export({ pattern: "archived-%" }).pipe(
          Stream.flatMap((text) => Stream.fromIterable(text.split("\n"))),
          Stream.filter((line) => line.startsWith("{\"stream")),
          Stream.map((line) => {
            const { addedAt, globalPosition: _, occurredAt, ...same } = JSON.parse(line)
            return { ...same, addedAt: Date.parse(addedAt), occurredAt: Date.parse(occurredAt) }
          }),
          Stream.runCollect
        )
      const [found, wanted] = [yield* copied(Archive.of(work)), yield* copied(Archive.of(elsewhere))]
      assert.lengthOf(found, total)
      assert.deepStrictEqual(found, wanted)
      const torn = yield* sql`select stream from depeche_msgs_work group by stream having count(*) <> max(version)`
      assert.deepStrictEqual(torn, [])
      const linked = sql<{ readonly all: boolean }>`select (select count(*) from depeche_stream_worked)
        = (select count(*) from depeche_msgs_work) as "all"`
      yield* until("all are linked, once", Effect.map(linked, ([row]) => row?.all === true), 20)
    }).pipe(Effect.provide(NodeServices.layer)), 180_000)
})
