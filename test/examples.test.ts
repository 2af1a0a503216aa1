/** The examples and the demo, run as a reader would run them: each in a process of its own. */
import { assert, describe, it, onTestFinished } from "@effect/vitest"
import { DateTime, Effect } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { FlightDeparted, Flights } from "../examples/demo/flights.ts"
import { databaseLayer } from "./support/database.ts"
import { place } from "./support/processes.ts"

// These are made of tests.
import "../examples/04-test-with-the-memory-layer.ts"
import "../examples/10-decider.ts"
import "../examples/13-http-api.ts"
import "../examples/14-test-with-sql.ts"
import "../examples/16-several-streams.ts"

const examples = path.resolve(import.meta.dirname, "../examples")

interface Finished {
  readonly code: number | null
  readonly lines: ReadonlyArray<string>
  readonly errors: string
}

interface RunOptions {
  readonly args?: ReadonlyArray<string>
  /** Once its output matches, it gets a signal: by default what Ctrl-C sends. */
  readonly interruptAt?: RegExp
  readonly signal?: NodeJS.Signals
  /** Default: it runs on PGlite. */
  readonly databaseUrl?: string
  readonly env?: NodeJS.ProcessEnv
  /** Is given the address at which it listens, once it does. It is interrupted then, unless its output is to match first. */
  readonly visit?: (url: string) => Promise<void>
}

/** Runs a program of the folder. */
const run = (
  program: string,
  { args = [], databaseUrl, env: more, interruptAt, signal = "SIGINT", visit }: RunOptions = {}
): Promise<Finished> => {
  const { DATABASE_URL: _, ...others } = process.env
  const env = { ...others, ...more, ...databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl } }
  const command = ["--conditions=@effect-message-store/source", path.join(examples, program), ...args]
  const child = spawn(process.execPath, command, { env, stdio: ["ignore", "pipe", "pipe"], timeout: 120_000 })
  let output = ""
  let errors = ""
  let interrupted = false
  let visited: Promise<void> | undefined
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text
    const url = visit && /http:\/\/127\.0\.0\.1:\d+/.exec(output)?.[0]
    if (url !== undefined && visited === undefined) {
      visited = visit?.(url)
      if (interruptAt === undefined) visited?.finally(() => child.kill(signal)).catch(() => {}) // it is told below
    }
    if (interrupted || !interruptAt?.test(output)) return
    interrupted = true
    child.kill(signal)
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text
  })
  return new Promise((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code) => {
      const finished = { code, lines: output.trimEnd().split("\n"), errors }
      Promise.resolve(visited).then(() => resolve(finished), reject)
    })
  })
}

/** Runs a program on the database of the client at hand: on the tests' server it takes a fourth of the time. */
const runBeside = (program: string, options?: RunOptions) =>
  Effect.flatMap(place, ({ database, url }) => {
    const databaseUrl = new URL(url)
    databaseUrl.pathname = database
    return Effect.promise(() => run(program, { ...options, databaseUrl: databaseUrl.href }))
  })

const runOnServer = (program: string, options?: RunOptions): Promise<Finished> =>
  Effect.runPromise(Effect.provide(runBeside(program, options), databaseLayer()))

const assertSucceeded = ({ code, errors }: Finished) =>
  assert.deepStrictEqual({ code, errors }, { code: 0, errors: "" })

describe("examples", () => {
  it("01: writes and reads", async () => {
    const finished = await run("01-write-and-read.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "order-1 is at version 1",
      "order-2 is at version 2",
      "  version 1: Grace ordered for $19.99",
      "  version 2: shipped with UPS",
      "3 messages in all orders",
      "message found in order-1: Ada ordered for $42.00",
      "no message 00000000-0000-0000-0000-000000000000 in this store"
    ])
  })

  it("02: conflicts, and gives every seat once", async () => {
    const finished = await runOnServer("02-optimistic-concurrency.ts")
    assertSucceeded(finished)
    const [refused, ...rest] = finished.lines
    assert.strictEqual(
      refused,
      "stream \"flight-LH454\" is at version 1, but the write expected version 0: read the stream again and decide again"
    )
    assert.strictEqual(rest.pop(), "2 seats taken, without a conflict")
    // Who gets which seat, and how often they collide before, is the race's to decide.
    const answers = rest.filter((line) => line !== "conflict: decide again")
    assert.isAbove(rest.length, answers.length)
    assert.deepStrictEqual(answers.map((line) => line.replace(/(for|:) \w+$/, "")), [
      "no seat ",
      "no seat ",
      "seat 1",
      "seat 2",
      "seat 3"
    ])
  })

  it("03: commits and rolls back the store together with a table", async () => {
    const finished = await runOnServer("03-transaction-with-your-own-table.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "order-1: committed",
      "  stock 7; order-1 at version 1, order-2 at 0",
      "order-2: payment declined, rolled back",
      "  stock 7; order-1 at version 1, order-2 at 0"
    ])
  })

  it("05: merges streams into partitions", async () => {
    const finished = await runOnServer("05-aggregated-stream.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "6 messages linked",
      "partition 1, last position 3",
      "  0: LH400 from airport-FRA, version 1",
      "  1: LH452 from airport-MUC, version 1",
      "  2: LH455 from airport-SFO, version 2",
      "  3: BA286 from airport-LHR, version 1",
      "partition 2, last position 1",
      "  0: UA58 from airport-SFO, version 1",
      "  1: UA59 from airport-FRA, version 2"
    ])
  })

  it("06: works until it is told to stop, and exits with 0", async () => {
    const finished = await runOnServer("06-worker.ts", {
      interruptAt: /(invoice[^]*){10}pity[^]*pity/,
      signal: "SIGTERM"
    })
    assertSucceeded(finished)
    // What the log tells beside its lines is printed in one line, or in several.
    const logged = /.* INFO .*: subscription \w+ is running \{[^}]*\}\n?/g
    const output = finished.lines.join("\n")
    assert.lengthOf(Array.from(output.matchAll(logged)), 2)
    const lines = output.replaceAll(logged, "").trim().split("\n")
    const of = (subscription: string) => lines.filter((line) => line.startsWith(subscription))
    assert.strictEqual(of("invoice").length + of("mail").length, lines.length)
    // Each customer is in one partition, and so in order.
    const sums = of("invoice  Ada").map((line) => Number(line.split("$")[1]))
    assert.isAtLeast(sums.length, 3)
    assert.deepStrictEqual(sums, sums.map((_, i) => 1 + 3 * i))
  })

  it("07: counts each payment once", async () => {
    const finished = await runOnServer("07-exactly-once.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "account-0: 2571",
      "account-1: 2590",
      "account-2: 2610",
      "61 payments, in more than 61 calls, each counted once"
    ])
  })

  it("08: retries, parks, replays and discards", async () => {
    const finished = await runOnServer("08-retry-park-replay.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "sent to ada@example.com, at attempt 1",
      "sent to busy@example.com, at attempt 2",
      "sent to edsger@example.com, at attempt 1",
      "parked at position 1 after 3 attempts: NotSent: \"grace\" is no address",
      "parked at position 3 after 3 attempts: NotSent: \"nobody\" is no address",
      "sent to grace@example.com, at attempt 4",
      "replayed: 1; discarded nobody: true",
      "parked now: 0"
    ])
  })

  it("24: looks at a store, and has parked messages handled again", async () => {
    const finished = await run("24-operator.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "invoices: 2 messages are parked, of which 0 are requeued",
      "2 × NoPaper: order # cannot be printed",
      "requeued: 2",
      "all is well",
      "Ordered in order-2 → Invoiced in invoice-2"
    ])
  })

  it("25: reads what it has written, from a standby if there is one", async () => {
    const finished = await runOnServer("25-standby.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, ["1: 25", "linked: 1"])
  })

  it("27: shows the store beside the application's routes, to operators alone", async () => {
    const authorization = `Basic ${btoa("operator:a password of tests")}`
    const statuses: Array<number> = []
    let page = ""
    const finished = await run("27-dashboard.ts", {
      env: { ADMIN_PASSWORD: "a password of tests", PORT: "0" },
      visit: async (url) => {
        statuses.push((await fetch(`${url}/orders/1`, { method: "POST" })).status)
        statuses.push((await fetch(`${url}/admin/orders`)).status)
        const shown = await fetch(`${url}/admin/orders/stream?name=order-1`, { headers: { authorization } })
        statuses.push(shown.status)
        page = await shown.text()
      }
    })
    assert.deepStrictEqual({ code: finished.code, errors: finished.errors }, { code: 130, errors: "" })
    assert.deepStrictEqual(statuses, [200, 401, 200])
    assert.include(page, "Ordered")
  })

  it("12: reads old messages as today's classes", async () => {
    const finished = await runOnServer("12-schema-evolution.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "1: Ada ordered for 4199 cents, by web",
      "2: parcel 1Z999",
      "3: Grace ordered for 1999 cents, by shop",
      "4: parcel 1Z111"
    ])
  })
})

describe("examples of read models", () => {
  it("17: builds a version beside another, promotes it, and goes back", async () => {
    const finished = await runOnServer("17-projection.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "version 1 is what readers see",
      "  {\"account\":\"account-0\",\"cents\":1090}",
      "  {\"account\":\"account-1\",\"cents\":1100}",
      "version 2 is at 100 %",
      "  {\"account\":\"account-0\",\"payments\":10,\"cents\":1090}",
      "  {\"account\":\"account-1\",\"payments\":10,\"cents\":1100}",
      "  {\"account\":\"account-0\",\"payments\":11,\"cents\":1091}",
      "  {\"account\":\"account-1\",\"payments\":10,\"cents\":1100}",
      "back to version 1",
      "  {\"account\":\"account-0\",\"cents\":1091}",
      "  {\"account\":\"account-1\",\"cents\":1100}"
    ])
  })
})

describe("examples of processes", () => {
  it("18: confirms what is paid in time, and lets the rest expire", async () => {
    const finished = await runOnServer("18-process-manager.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "booking 1: Reserved, Paid, Confirmed",
      "booking 2: Reserved, PaymentOverdue, Expired, Paid, RefundOwed",
      "booking 3: Reserved, PaymentOverdue, Expired"
    ])
  })
})

describe("examples of forgetting", () => {
  it("21: closes a year and deletes it, and redacts a name", async () => {
    const finished = await runOnServer("21-forgetting.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "3 deleted, the stream is at version 4",
      "4 YearClosed: redacted (redacted)",
      "5 Booked: 2",
      "the stream is at version 0"
    ])
  })
})

describe("examples of personal data", () => {
  it("23: forgets a customer, and the row of a read model", async () => {
    const finished = await runOnServer("23-personal-data.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "registered: <redacted>",
      "registered: <redacted>",
      "in the read model: ada@example.com, grace@example.com",
      "somebody from the UK: forgotten",
      "in the read model: grace@example.com",
      "refused: forgotten"
    ])
  })
})

describe("examples of decisions", () => {
  it("20: tags what was stored before", async () => {
    const finished = await runOnServer("20-tags-after-the-fact.ts")
    assertSucceeded(finished)
    assert.strictEqual(finished.lines[0], "not found by club yet")
    assert.match(finished.lines.join(), /tagged up to (\d+) of \1,/)
    assert.strictEqual(finished.lines.at(-1), "3 in chess")
  })

  it("09: holds the rules of courses and students", async () => {
    const finished = await runOnServer("09-course-and-student.ts")
    assertSucceeded(finished)
    const [subscriptions, ...rest] = finished.lines
    assert.match(subscriptions ?? "", /^[78] subscriptions, [45] refusals$/)
    assert.deepStrictEqual(rest, ["Barbara: subscribed already"])
  })

  it("11: gives a name to one user at a time", async () => {
    const finished = await runOnServer("11-unique-user-names.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, ["1 of 10 is ada", "ada is taken"])
  })
})

describe("examples of tenants", () => {
  it("28: keeps the messages of each tenant in a schema of its own", async () => {
    const finished = await runOnServer("28-tenants.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "tenant_a: order-1 is at version 1",
      "tenant_b: order-1 is at version 1",
      "tenant_a: order-1 is at version 2"
    ])
  })
})

describe("examples of archives", () => {
  it("22: archives, deletes what is archived, and imports it elsewhere", async () => {
    const finished = await runOnServer("22-archive.ts")
    assertSucceeded(finished)
    assert.deepStrictEqual(finished.lines, [
      "archived: 300 messages of 3 streams",
      "deleted: 300 of 300",
      "account-1 has YearClosed at version 101",
      "imported: 300 of 300",
      "account-1 had 100 payments"
    ])
  })
})

describe("demo", () => {
  const counts = ({ lines }: Finished) => {
    const line = lines.find((text) => text.startsWith("appended "))
    const [, appended, found] = /^appended (\d+), found (\d+)$/.exec(line ?? "") ?? []
    return { appended: Number(appended), found: Number(found) }
  }

  const countedOf = ({ lines }: Finished) => {
    const line = lines.find((text) => text.startsWith("counted "))
    return Number(/^counted (\d+); up to date .* after the last write$/.exec(line ?? "")?.[1])
  }

  const verified = [
    "verified  departures and delays of every airport are those of the input",
    "verified  the table of delays has each of them once"
  ]

  /** What it says of a database that has everything already. */
  const assertFoundAll = (finished: Finished, howToBeginAfresh: string) => {
    assertSucceeded(finished)
    assert.deepStrictEqual(counts(finished), { appended: 0, found: 20_000 })
    assert.strictEqual(countedOf(finished), 0)
    assert.includeMembers([...finished.lines], [
      `goes on   an earlier run has counted 20,000; to begin afresh, ${howToBeginAfresh}`,
      "100 %  0 written, 20,000 found, 20,000 counted",
      "written   nothing",
      ...verified
    ])
    assert.notMatch(finished.lines.join("\n"), /\d of 20,000 written/)
  }

  it.live("appends everything once, reports, and notices what is not the input", () =>
    Effect.gen(function*() {
      const demo = runBeside("demo/main.ts")
      const first = yield* demo
      assertSucceeded(first)
      assert.deepStrictEqual(counts(first), { appended: 20_000, found: 0 })
      assert.includeMembers([...first.lines], [
        "input     20,000 flights from 220 airports",
        "100 %  20,000 of 20,000 written, 20,000 counted",
        "airport   departures   mean delay",
        "DFW            1,103      9.5 min",
        "streams   220",
        ...verified,
        "look      npm run dashboard -- --store demo_flights"
      ])
      assert.strictEqual(countedOf(first), 20_000)
      assert.match(first.lines.join("\n"), /^written   20,000 messages in \d+\.\d s: [\d,]+ per second$/m)
      assert.match(first.lines.join("\n"), /^read      20,000 messages in \d+\.\d s: [\d,]+ per second$/m)
      assert.match(first.lines.join("\n"), /^size      \d+\.\d MiB, with indexes$/m)
      assert.notMatch(first.lines.join("\n"), /goes on|found,/)
      assertFoundAll(yield* demo, "use an empty database")

      const intruder = new FlightDeparted({
        occurredAt: DateTime.makeUnsafe("2001-04-01T00:00:00Z"),
        origin: "SFO",
        destination: "JFK",
        miles: 2586,
        delay: 0
      })
      yield* Effect.provide(Flights.use((flights) => flights.write("airport-SFO", intruder)), Flights.layer)
      const third = yield* demo
      assert.strictEqual(third.code, 1)
      assert.match(third.errors, /^what was read is not the input: .*airport-SFO/)
      for (const line of verified) assert.notInclude(third.lines, line)
    }).pipe(Effect.provide(databaseLayer())), 180_000)

  it("goes on where Ctrl-C stopped it, in a directory", { timeout: 180_000 }, async () => {
    const dataDir = await fs.mkdtemp(path.join(os.tmpdir(), "demo-"))
    onTestFinished(() => fs.rm(dataDir, { recursive: true }))

    const interrupted = await run("demo/main.ts", { args: [dataDir], interruptAt: /\d+ %/ })
    assert.deepStrictEqual({ code: interrupted.code, errors: interrupted.errors }, { code: 130, errors: "" })
    assert.strictEqual(interrupted.lines.at(-1), "interrupted: run again to go on")

    // This time with the dashboard beside it.
    let page = ""
    const completed = await run("demo/main.ts", {
      args: [dataDir, "--dashboard"],
      interruptAt: /^look .* until Ctrl-C$/m,
      visit: async (url) => {
        page = await (await fetch(url)).text()
      }
    })
    assert.deepStrictEqual({ code: completed.code, errors: completed.errors }, { code: 130, errors: "" })
    assert.include(page, "demo_flights")
    const { appended, found } = counts(completed)
    assert.strictEqual(appended + found, 20_000)
    assert.isAbove(appended, 0)
    assert.isAbove(found, 0)
    assert.includeMembers([...completed.lines], ["streams   220", ...verified])

    const last = await run("demo/main.ts", { args: [dataDir] })
    assertFoundAll(last, `remove ${dataDir}`)
    assert.include(last.lines, `look      npm run dashboard -- --url ${dataDir}`)
  })
})
