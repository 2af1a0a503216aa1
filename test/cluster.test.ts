/**
 * Deciders as entities of a cluster, in processes that are killed while commands run: what was answered stands exactly once,
 * and no flight has more passengers than seats.
 */
import { NodeClusterSocket } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Layer, Result, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { spawn } from "node:child_process"
import * as net from "node:net"
import * as path from "node:path"
import { booking, Flight, Flights, seats } from "../examples/18-cluster/flights.ts"
import { databaseLayer } from "./support/database.ts"
import { place, until } from "./support/processes.ts"

const program = path.resolve(import.meta.dirname, "../examples/18-cluster/runner.ts")

// Quick to notice that a runner is gone; the same shards for all.
const settings = { shardsPerGroup: 32, refreshAssignmentsInterval: "200 millis" } as const
const environment = {
  HOST: "127.0.0.1",
  SHARDS_PER_GROUP: `${settings.shardsPerGroup}`,
  REFRESH_ASSIGNMENTS_INTERVAL: settings.refreshAssignmentsInterval,
  RUNNER_HEALTH_CHECK_INTERVAL: "500 millis",
  SHARD_LOCK_EXPIRATION: "10 seconds",
  ENTITY_MESSAGE_POLL_INTERVAL: "200 millis"
}

const freePort = Effect.callback<number>((resume) => {
  const server = net.createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" ? address?.port ?? 0 : 0)))
  })
})

/** Starts a runner; answers what kills it. */
const startRunner = Effect.gen(function*() {
  const { database, url } = yield* place
  const port = yield* freePort
  const { DATABASE_URL: _, ...inherited } = process.env
  const location = new URL(url)
  location.pathname = `/${database}`
  let output = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--conditions=@effect-message-store/source", program], {
        env: { ...inherited, ...environment, PORT: `${port}`, DATABASE_URL: location.href },
        stdio: ["ignore", "pipe", "pipe"]
      })
    ),
    (started) => Effect.sync(() => started.kill("SIGKILL"))
  )
  for (const pipe of [child.stdout, child.stderr]) {
    pipe.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-20_000)
    })
  }
  return { kill: Effect.sync(() => child.kill("SIGKILL")), output: () => output }
})

/** Waits until as many runners have shards. */
const untilRunning = (count: number) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* until(
      `${count} runners have shards`,
      Effect.map(
        sql<{ readonly sessions: number }>`select count(distinct pid)::int as sessions from pg_locks
          where locktype = 'advisory' and objsubid = 2 and database = (
            select oid from pg_database where datname = current_database()
          )`,
        ([row]) => row?.sessions === count
      ),
      120
    )
  })

interface Command {
  readonly flight: string
  readonly id: string
  readonly passenger: string
}

interface Refusal {
  readonly _tag: string
}

const layerClient = NodeClusterSocket.layer({ clientOnly: true, shardingConfig: settings })

describe("deciders as entities of a cluster", () => {
  const database = databaseLayer()
  layer(Layer.mergeAll(layerClient, Flights.layer).pipe(Layer.provideMerge(database)), {
    excludeTestServices: true,
    timeout: "1 minute"
  })("whose runners are killed", (it) => {
    it.effect("carry out each command once, and keep to their rules", () =>
      Effect.gen(function*() {
        const flights = yield* Flights
        const clientOf = yield* Flight.client
        const runners = [yield* startRunner, yield* startRunner]
        yield* untilRunning(2)

        const names = Arr.makeBy(8, (i) => `${i}`)
        const commands = Arr.makeBy(names.length * (seats + 5), (i): Command => ({
          flight: names[i % names.length] ?? "",
          id: globalThis.crypto.randomUUID(),
          passenger: `passenger ${i}`
        }))
        const booked = new Set<string>()
        const refused = new Set<string>()
        // Some are carried out beside the cluster, as by a runner that still believes that a flight is its own.
        const book = ({ flight, ...command }: Command, isBeside: boolean): Effect.Effect<unknown, Refusal> =>
          isBeside
            ? flights.update(`flight-${flight}`, booking, (sofar) => booking.decide(command, sofar))
            : clientOf(flight).BookSeat(command)
        const send = (command: Command, isBeside: boolean) =>
          Effect.result(book(command, isBeside)).pipe(
            Effect.tap((answer) =>
              Effect.sync(() => {
                if (Result.isSuccess(answer)) booked.add(command.id)
                else if (answer.failure._tag === "FlightFull") refused.add(command.id)
              })
            ),
            // The cluster may not know for a while whether it has a command: it is sent again.
            Effect.repeat({
              until: (answer) => Result.isSuccess(answer) || answer.failure._tag === "FlightFull",
              schedule: Schedule.spaced("100 millis")
            })
          )
        // Some are sent twice, as by a client that has lost patience.
        const sending = yield* Effect.forkChild(
          Effect.forEach(commands, (command, i) =>
            Effect.forEach(i % 10 === 0 ? [command, command] : [command], (one) =>
              send(one, i % 9 === 4), { concurrency: 2 }), {
            concurrency: 12,
            discard: true
          })
        )
        const answered = (count: number) =>
          until(
            `${count} are answered`,
            Effect.sync(() =>
              booked.size + refused.size >= count
            ),
            120
          )

        yield* answered(20)
        yield* (runners[0]?.kill ?? Effect.void)
        yield* startRunner
        yield* answered(90)
        yield* (runners[1]?.kill ?? Effect.void)
        yield* startRunner
        yield* Fiber.join(sending)
        yield* untilRunning(2)

        for (const flight of names) {
          const stored = yield* Stream.runCollect(flights.read(`flight-${flight}`))
          const ids = stored.map(({ messageId }) =>
            messageId
          )
          assert.lengthOf(ids, seats)
          const ofFlight = commands.filter((command) => command.flight === flight).map(({ id }) => id)
          assert.deepStrictEqual(ids.toSorted(), ofFlight.filter((id) => booked.has(id)).toSorted())
          assert.deepStrictEqual(ofFlight.filter((id) => !booked.has(id) && !refused.has(id)), [])
        }
        assert.strictEqual(booked.size + refused.size, commands.length)
      }).pipe(Effect.scoped), 300_000)
  })
})
