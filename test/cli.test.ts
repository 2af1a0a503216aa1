/** The command line, as a user has it: spawned, with its output piped, or in a pseudo terminal. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { PgliteClient } from "effect-message-store/pglite"
import { SqlClient } from "effect/sql"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { stripVTControlCharacters } from "node:util"
import { inject } from "vitest"
import { databaseLayer } from "./support/database.ts"
import { image } from "./support/pglite.ts"
import * as Release01 from "./support/release01.ts"
import { createRole, passwordOfRoles, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", { ...Message.fields, note: Schema.String }) {}

class Invoiced extends Schema.TaggedClass<Invoiced>()("Invoiced", Message.fields) {}

class Orders extends MessageStore.Service<Orders>()("test/cli/Orders", {
  name: "orders",
  schema: Schema.Union([Ordered, Invoiced])
}) {}

class All extends AggregatedStream.Service<All>()("test/cli/All", {
  store: Orders,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.constant()
}) {}

class Invoices extends Subscription.Service<Invoices>()("test/cli/Invoices", {
  stream: All,
  name: "invoices",
  retry: Schedule.recurs(0)
}) {}

const Services = Invoices.layer.pipe(Layer.provideMerge(All.layer), Layer.provideMerge(Orders.layer))

/** Colours, a cleared screen, text from right to left, and a line of its own. */
const hostile = "order-\u001b[31mred\u009b2J\u202e\nerror: nothing"

/** Two orders, an invoice that one of them has caused, and what it takes to print them: all was parked. */
const prepared = Effect.gen(function*() {
  const orders = yield* Orders
  const first = new Ordered({ note: "\u001b[2J" })
  yield* orders.write("order-1", first)
  const invoice = new Invoiced({})
  yield* orders.write("invoice-1", invoice, { metadata: { causationId: first.messageId } })
  yield* orders.write(hostile, new Ordered({ note: "" }))
  yield* (yield* All).projector.runOnce
  yield* (yield* Invoices).drain((_, { stream }) => Effect.fail({ _tag: "NoPaper", message: `no paper for ${stream}` }))
  return { first, invoice }
}).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

const program = path.resolve(import.meta.dirname, "../src/cli/main.ts")
const command = [process.execPath, "--conditions=@effect-message-store/source", program]

interface Finished {
  readonly code: number | null
  readonly out: string
  readonly errors: string
}

const environment = (url: string | undefined) => {
  const { DATABASE_URL: _, FORCE_COLOR: __, NO_COLOR: ___, ...others } = process.env
  return { ...others, TERM: "xterm", ...url === undefined ? {} : { DATABASE_URL: url } }
}

const finished = (child: ChildProcess, onOutput: (out: string) => void = () => {}) =>
  Effect.promise(() =>
    new Promise<Finished>((resolve, reject) => {
      let [out, errors] = ["", ""]
      child.stdout?.setEncoding("utf8").on("data", (text: string) => onOutput(out += text))
      child.stderr?.setEncoding("utf8").on("data", (text: string) => errors += text)
      child.once("error", reject)
      child.once("close", (code) => resolve({ code, out, errors }))
    })
  )

/** Runs a command with its output in a pipe. */
const run = (url: string | undefined, ...args: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    const [node = "", ...rest] = command
    return finished(spawn(node, [...rest, ...args], { env: environment(url), stdio: ["ignore", "pipe", "pipe"] }))
  })

/** Runs a command in a terminal, and types something once its output matches. */
const inTerminal = (url: string, at: RegExp, typed: string, ...args: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    const line = [...command, ...args].map((part) => `'${part}'`).join(" ")
    const child = spawn("script", ["-qec", line, "/dev/null"], {
      env: environment(url),
      stdio: ["pipe", "pipe", "pipe"]
    })
    let hasTyped = false
    return finished(child, (out) => {
      if (hasTyped || !at.test(out)) return
      hasTyped = true
      child.stdin.write(typed)
    })
  })

const hasTerminal = process.platform === "linux" && spawnSync("script", ["--version"]).status === 0

const urlOf = (role?: string) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      Effect.map(sql<{ readonly name: string }>`select current_database() as name`, ([row]) => {
        const url = new URL(inject("postgresUrl"))
        url.pathname = `/${row?.name}`
        if (role === undefined) return url.href
        url.searchParams.set("user", role)
        url.searchParams.set("password", passwordOfRoles)
        if (url.username !== "") [url.username, url.password] = [role, passwordOfRoles]
        return url.href
      })
  )

const onDatabase = (title: string, test: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  it.live(title, () => Effect.provide(test, Layer.fresh(databaseLayer())))

/** A directory that is there until the scope closes. */
const temporary = Effect.acquireRelease(
  Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "cli-"))),
  (created) => Effect.promise(() => fs.rm(created, { recursive: true, force: true }))
)

/** No byte of it does anything to a terminal. */
const assertHarmless = (text: string) => assert.notMatch(text, /[^\P{Cc}\n\t]|\p{Bidi_Control}/u)

const lines = (text: string) => text.trimEnd().split("\n")

describe("effect-message-store", () => {
  onDatabase(
    "tells what there is, what is wrong, and what led to what; none of it does anything to a terminal",
    Effect.gen(function*() {
      const url = yield* urlOf()
      const { first, invoice } = yield* Effect.provide(prepared, Layer.fresh(Services))
      const [status, check, streams, message, trace, errors] = yield* Effect.all([
        run(url, "status"),
        run(url, "check", "--json"),
        run(url, "streams", "order-%"),
        run(url, "show", first.messageId),
        run(url, "trace", invoice.messageId),
        run(url, "parked", "invoices", "--errors", "--json")
      ], { concurrency: 2 })
      for (const { errors: told, out } of [status, check, streams, message, trace, errors]) {
        assertHarmless(out)
        assert.strictEqual(told, "")
      }
      assert.strictEqual(status.code, 0)
      assert.include(status.out, "store orders")
      assert.include(status.out, "invoices\tall_orders\t0")
      assert.include(status.out, "error: invoices: 2 messages are parked")

      assert.strictEqual(check.code, 1)
      assert.deepInclude(JSON.parse(check.out).problems[0], { kind: "parked", of: "invoices", severity: "error" })

      const [heads, ...rows] = lines(streams.out)
      assert.strictEqual(heads, "stream\tversion\tmessages\tglobal position\tadded")
      assert.deepStrictEqual(rows.map((row) => row.split("\t")[0]).toSorted(), [
        "order-1",
        "order-\\u001b[31mred\\u009b2J\\u202e\\u000aerror: nothing"
      ])
      assert.include(message.out, "all_orders partition 0, position 0 (invoices: parked)")
      assert.include(message.out, "\"note\": \"\\u001b[2J\"")
      assert.deepStrictEqual(lines(trace.out), [
        `Ordered order-1@1 ${first.messageId}`,
        `└─ Invoiced invoice-1@1 ${invoice.messageId}`
      ])
      assert.deepStrictEqual(
        JSON.parse(errors.out).map(({ count, tag }: { readonly count: number; readonly tag: string }) => [count, tag]),
        [[1, "NoPaper"], [1, "NoPaper"]]
      )
    })
  )

  onDatabase(
    "does nothing unless it is told so, and then what the processes of the subscription honour",
    Effect.gen(function*() {
      const url = yield* urlOf()
      yield* Effect.provide(
        Effect.gen(function*() {
          yield* prepared
          const invoices = yield* Invoices
          const directory = yield* temporary
          const archive = path.join(directory, "orders.ndjson.gz")
          const exported = yield* run(url, "export", "order-%", "--to", archive)
          assert.include(exported.out, "2 messages of 2 streams are in the archive")
          const imported = yield* run(url, "import", archive, "--yes", "--json")
          assert.deepStrictEqual(JSON.parse(imported.out), { messages: 2, skipped: 2 })
          const refused = yield* run(url, "requeue", "invoices", "--all")
          assert.strictEqual(refused.code, 1)
          assert.match(refused.errors, /^error: .* There is nobody to ask: add --yes\n$/)
          assert.isTrue((yield* invoices.parked).every(({ requeuedAt }) => requeuedAt === undefined))

          const [requeued, discarded] = [
            yield* run(url, "requeue", "invoices", "--place", "0:0", "--yes", "--json"),
            yield* run(url, "discard", "invoices", "--place", "0:1", "--yes", "--json")
          ]
          assert.deepStrictEqual([requeued, discarded].map(({ code, out }) => [code, JSON.parse(out)]), [
            [0, { count: 1 }],
            [0, { count: 1 }]
          ])
          assert.deepStrictEqual((yield* invoices.parked).map(({ position }) => position), [0])
          const nothing = yield* run(url, "requeue", "invoices", "--error", "NoPaper: no paper", "-y")
          assert.deepStrictEqual([nothing.code, nothing.out.split(" ")[0]], [0, "0"])
          assert.include(nothing.errors, "`parked invoices --errors --json` errors")
          const paused = yield* run(url, "pause", "invoices", "--yes", "--reason", "lunch", "--by", "Ada")
          assert.strictEqual(paused.code, 0)
          assert.deepInclude((yield* invoices.status)[0]?.paused, { reason: "lunch", by: "Ada" })
          assert.strictEqual((yield* run(url, "reset", "invoices", "-y")).out, "reset\n")
          assert.strictEqual((yield* invoices.status)[0]?.checkpoint, -1)
        }),
        Layer.fresh(Services)
      )
    }).pipe(Effect.scoped)
  )

  onDatabase(
    "prints messages as they are written, until it is interrupted",
    Effect.gen(function*() {
      const url = yield* urlOf()
      yield* Effect.provide(
        Effect.gen(function*() {
          const orders = yield* Orders
          yield* orders.write("order-0", new Ordered({ note: "before" }))
          const [node = "", ...rest] = command
          const args = [...rest, "tail", "order-%", "--after", "1", "--json"]
          const child = spawn(node, args, { env: environment(url), stdio: ["ignore", "pipe", "pipe"] })
          yield* orders.write("invoice-1", new Invoiced({}))
          const written = yield* orders.write("order-1", new Ordered({ note: "\u009b31m" }))
          const { code, errors, out } = yield* finished(child, (soFar) => {
            if (soFar.includes("\n")) child.kill("SIGINT")
          })
          assert.deepInclude(JSON.parse(out), { stream: "order-1", globalPosition: written.globalPosition })
          assertHarmless(out)
          assert.deepStrictEqual({ code, errors }, { code: 130, errors: "" })
          // Nobody handles them, but not for long.
          yield* (yield* All).projector.runOnce
          const status = yield* run(url, "status")
          assert.include(status.out, "invoices\tall_orders\t2")
          assert.match(status.out, /\nnothing is wrong; 2 messages wait\n$/)
        }),
        Layer.fresh(Services)
      )
    })
  )

  onDatabase(
    "serves the dashboard to who has its link, until Ctrl-C",
    Effect.gen(function*() {
      const url = yield* urlOf()
      yield* Effect.provide(
        Effect.flatMap(Orders, (orders) => orders.write("order-1", new Ordered({ note: "" }))),
        Layer.fresh(Services)
      )
      const [node = "", ...rest] = command
      const args = [...rest, "dashboard", "--port", "0", "--json"]
      const child = spawn(node, args, { env: environment(url), stdio: ["ignore", "pipe", "pipe"] })
      const visit = async (out: string) => {
        const link = new URL(JSON.parse(out).url)
        const without = await fetch(link.origin)
        const entered = await fetch(link, { redirect: "manual" })
        const cookie = entered.headers.getSetCookie().map((each) => each.split(";")[0]).join("; ")
        const page = await (await fetch(`${link.origin}/streams`, { headers: { cookie } })).text()
        return { without: without.status, entered: entered.headers.get("location"), page, port: link.port }
      }
      let visited: ReturnType<typeof visit> | undefined
      const { code, errors } = yield* finished(child, (soFar) => {
        if (visited !== undefined || !soFar.includes("\n")) return
        visited = visit(soFar).finally(() => child.kill("SIGINT"))
        visited.catch(() => {}) // it is told below
      })
      const { entered, page, port, without } = yield* Effect.promise(async () =>
        await visited ?? assert.fail("no link")
      )
      assert.deepStrictEqual({ code, errors, entered, without }, { code: 130, errors: "", entered: "/", without: 401 })
      assert.include(page, "order-1")
      assert.include(page, "read-only")
      assert.match(port, /^\d+$/)
      const short = yield* run(url, "dashboard", "--token", "short")
      assert.deepStrictEqual([short.code, short.errors.trim()], [1, "error: --token must have 16 characters or more"])
    })
  )

  it.live.skipIf(!hasTerminal)("has tables, colours and questions in a terminal", () =>
    Effect.gen(function*() {
      const url = yield* urlOf()
      yield* Effect.provide(
        Effect.gen(function*() {
          yield* prepared
          const invoices = yield* Invoices
          const status = yield* inTerminal(url, /$^/, "", "status")
          assert.include(status.out, "\u001b[31merror: invoices")
          const text = stripVTControlCharacters(status.out).replaceAll("\r", "")
          assertHarmless(text)
          assert.match(text, /^SUBSCRIPTION {2}OF +LAG/m)
          assert.match(text, /^invoices {6}all_orders +0 /m)
          const no = yield* inTerminal(url, /\(y\/N\)/, "n", "pause", "invoices")
          assert.include(no.out, "nothing was changed")
          assert.strictEqual(no.code, 1)
          const left = yield* inTerminal(url, /\(y\/N\)/, "\u0003", "pause", "invoices")
          assert.notStrictEqual(left.code, 0)
          assert.isUndefined((yield* invoices.status)[0]?.paused)
          const yes = yield* inTerminal(url, /\(y\/N\)/, "y", "pause", "invoices")
          assert.strictEqual(yes.code, 0)
          assert.isDefined((yield* invoices.status)[0]?.paused)
        }),
        Layer.fresh(Services)
      )
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))

  onDatabase(
    "says in one line what to do",
    Effect.gen(function*() {
      const url = yield* urlOf()
      const cases: ReadonlyArray<readonly [string | undefined, ReadonlyArray<string>, RegExp]> = [
        [undefined, ["status"], /which database\? Set DATABASE_URL/],
        ["postgres://nobody@127.0.0.1:1/x", ["status"], /the database cannot be reached .* look whether it runs/],
        [url, ["status"], /this database has no store .* `effect-message-store migrate --store <name>` makes one/],
        [url, ["status", "--store", "orders"], /"orders" does not exist: .* run `effect-message-store migrate`/],
        [url, ["show"], /Missing required argument: what: see `effect-message-store show --help`/],
        [url, ["shwo"], /Unknown subcommand "shwo" for "effect-message-store" Did you mean this\? show: see/]
      ]
      const results = yield* Effect.forEach(cases, ([given, args]) => run(given, ...args), { concurrency: 2 })
      for (const [i, { code, errors, out }] of results.entries()) {
        assert.deepStrictEqual([code, out, lines(errors).length], [1, "", 1], errors)
        assert.match(errors, cases[i]?.[2] ?? /^$/)
      }
    })
  )

  onDatabase(
    "brings a store that an earlier version made up to date",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const url = yield* urlOf()
      yield* Release01.createStore("orders")
      yield* Release01.createStream("orders", "all_orders")
      yield* Release01.createSubscription("invoices")
      yield* sql`insert into effect_message_store_claims_invoices (partition, token, owner) values (-1, 0, 'all_orders')`
      const old = yield* run(url, "status")
      assert.strictEqual(old.code, 1)
      assert.match(old.errors, /^error: "orders" was made by .* run `effect-message-store migrate`\n$/)
      const printed = yield* run(url, "migrate", "--print")
      assert.match(printed.out, /^-- store orders, migration 4: times\nbegin;\n/)
      assert.include(printed.out, "-- aggregated stream all_orders, migration 2")
      assert.include(printed.out, "-- subscription invoices, migration 2")
      assert.strictEqual((yield* run(url, "migrate", "--yes")).code, 0)
      const status = JSON.parse((yield* run(url, "status", "--json")).out)
      assert.deepInclude(status.subscriptions[0], { name: "invoices", aggregatedStream: "all_orders" })
      assert.deepStrictEqual(status.subscriptions[0].objects, { made: 4, known: 4 })
    })
  )

  it.live("tells a role that may only read what it may not do", () =>
    Effect.scoped(Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.provide(prepared, Layer.fresh(Services))
      yield* createRole("esm_cli_reader")
      yield* sql`grant usage on schema public to esm_cli_reader`
      yield* sql`grant select on all tables in schema public to esm_cli_reader`
      yield* sql`revoke select on effect_message_store_parked_invoices from esm_cli_reader`
      const url = yield* urlOf("esm_cli_reader")
      const check = yield* run(url, "check")
      assert.strictEqual(check.code, 0, check.errors)
      assert.include(check.out, "warning: invoices: permission denied for table effect_message_store_parked_invoices")
      const paused = yield* run(url, "pause", "invoices", "--yes")
      assert.deepStrictEqual([paused.code, paused.errors], [
        1,
        "error: permission denied for table effect_message_store_paused_invoices: this role may not do that; use one that may, " +
        "or grant it\n"
      ])
    })).pipe(Effect.provide(Layer.fresh(sharedDatabaseLayer))))

  it.live("opens the directory of a PGlite database, and completes what is typed", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const dataDir = path.join(directory, "data")
      const loadDataDir = yield* image
      const made = PgliteClient.layer({ dataDir, loadDataDir })
      yield* Effect.provide(Effect.void, Layer.fresh(Layer.provide(Orders.layer, made)))
      const mistyped = yield* run(undefined, "status", "--url", path.join(directory, "date"))
      assert.deepStrictEqual([mistyped.code, mistyped.errors], [
        1,
        "error: DATABASE_URL or --url is neither a server (postgres://…) nor a directory that is there; " +
        "`effect-message-store migrate --store <name>` makes a database in a new one\n"
      ])
      assert.deepStrictEqual(yield* Effect.promise(() => fs.readdir(directory)), ["data"])
      const status = yield* run(undefined, "status", "--url", dataDir, "--json")
      assert.deepInclude(JSON.parse(status.out), { store: "orders", aggregatedStreams: [] })
      yield* Effect.gen(function*() {
        const inUse = yield* run(undefined, "status", "--url", dataDir)
        assert.strictEqual(inUse.code, 1)
        assert.include(inUse.errors, `error: the PGlite database cannot be opened: process ${process.pid} has it open`)
        assert.notInclude(inUse.errors, "look whether it runs")
      }).pipe(Effect.provide(Layer.fresh(PgliteClient.layer({ dataDir }))))
      const completions = yield* run(undefined, "--completions", "bash")
      for (const word of ["status", "requeue", "--yes"]) assert.include(completions.out, word)
    }).pipe(Effect.scoped))
})
