/** Servers that take each other's place: a primary and its standby, by streaming replication, and what finds the primary. */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs/promises"
import * as net from "node:net"
import * as path from "node:path"
import { embedded, type EmbeddedOptions } from "../servers/embedded.ts"
import { until } from "./processes.ts"

export interface Node {
  readonly url: string
  /** Runs statements on a connection of its own. */
  readonly ask: <A, E>(statements: Effect.Effect<A, E, SqlClient.SqlClient>) => Effect.Effect<A, E | SqlError.SqlError>
  readonly directory: string
  /** Ends it at once, as a crash does. */
  readonly kill: Effect.Effect<void>
}

const settings = Object.entries({
  max_connections: "100",
  fsync: "off",
  shared_buffers: "32MB",
  wal_keep_size: "512MB",
  wal_retrieve_retry_interval: "20ms",
  wal_receiver_status_interval: "1s",
  max_standby_streaming_delay: "100ms",
  autovacuum: "off"
}).flatMap(([name, value]) => ["-c", `${name}=${value}`])

const askAt = (url: string): Node["ask"] => {
  const client = PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })
  return (statements) => Effect.provide(statements, Layer.fresh(client))
}

/** Starts a cluster, by the binaries of npm unless others are given. */
export const start = Effect.fnUntraced(function*(options: EmbeddedOptions = {}): Effect.fn.Return<
  Node,
  never,
  Scope.Scope
> {
  const { directory, server, url } = yield* embedded(settings, options)
  return {
    url,
    directory,
    ask: askAt(url),
    kill: Effect.promise(async () => {
      const pid = Number((await fs.readFile(path.join(directory, "data", "postmaster.pid"), "utf8")).split("\n")[0])
      const ended = once(server, "exit")
      process.kill(pid, "SIGQUIT")
      await ended
    })
  }
})

/** Another database of a cluster. */
export const databaseOf = (node: Node, name: string): Node => {
  const url = node.url.replace("/postgres?", `/${name}?`)
  return { ...node, url, ask: askAt(url) }
}

/** A new, empty cluster. */
export const startPrimary: Effect.Effect<Node, never, Scope.Scope> = start()

const conninfo = ({ directory }: Node) => `host=${directory} user=postgres application_name=standby`

/** What is the standby's own, or is streamed. */
const left = ["pg_wal/*", "pg_replslot/*", "pg_stat_tmp/*", "pgsql_tmp*", "postmaster.*", "postgresql.auto.conf"]

/** A standby of a primary that others write to meanwhile, by its low-level interface for backups. Ends when it streams. */
export const startStandby = Effect.fnUntraced(function*(primary: Node): Effect.fn.Return<Node, never, Scope.Scope> {
  // The session that begins the backup ends it.
  const backup = yield* primary.ask(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    return yield* Effect.scoped(Effect.gen(function*() {
      const connection = yield* sql.reserve
      yield* connection.executeUnprepared("select pg_backup_start('standby', true)::text", [], undefined)
      const copied = yield* Effect.promise(() => fs.mkdtemp(path.join(path.dirname(primary.directory), "backup-")))
      yield* Effect.promise(() => copy(path.join(primary.directory, "data"), copied))
      const [ended] = yield* connection.executeUnprepared("select labelfile from pg_backup_stop(false)", [], undefined)
      return { copied, label: String(Object(ended).labelfile) }
    }))
  })).pipe(Effect.orDie)
  const standby = yield* start({
    prepare: async (data) => {
      await fs.rm(data, { recursive: true })
      await fs.rename(backup.copied, data)
      await fs.chmod(data, 0o700)
      await fs.writeFile(path.join(data, "backup_label"), backup.label)
      await fs.writeFile(path.join(data, "standby.signal"), "")
      await fs.writeFile(path.join(data, "postgresql.auto.conf"), `primary_conninfo = '${conninfo(primary)}'\n`)
    }
  })
  yield* until("the standby streams", isStreaming(primary))
  return standby
})

const copy = async (from: string, to: string): Promise<void> => {
  const read = spawn("tar", ["-cf", "-", ...left.map((pattern) => `--exclude=./${pattern}`), "."], {
    cwd: from,
    stdio: ["ignore", "pipe", "ignore"]
  })
  const write = spawn("tar", ["-xf", "-"], { cwd: to, stdio: ["pipe", "ignore", "inherit"] })
  read.stdout.pipe(write.stdin)
  const [[readBy], [writtenBy]] = await Promise.all([once(read, "exit"), once(write, "exit")])
  // 1: files have changed meanwhile, as they do.
  if (readBy > 1 || writtenBy !== 0) throw new Error(`tar: ${readBy}, ${writtenBy}`)
}

const holds = (node: Node, condition: string) =>
  node.ask(
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql.unsafe<{ readonly holds: boolean }>(`select ${condition} as holds`)
    )
  ).pipe(
    Effect.map(([row]) => row?.holds === true),
    Effect.orDie
  )

/** Runs statements one after the other. */
export const run = (node: Node, ...statements: ReadonlyArray<string>) =>
  Effect.orDie(
    node.ask(Effect.flatMap(SqlClient.SqlClient, (sql) =>
      Effect.forEach(statements, (statement) =>
        sql.unsafe(statement).unprepared, { discard: true })))
  )

export const isStreaming = (primary: Node) =>
  holds(primary, "exists (select from pg_stat_replication where state = 'streaming')")

/** Has commits of the primary wait for its standby, or not; none does when the scope closes, or it would wait for ever. */
export const setSynchronous = Effect.fnUntraced(function*(primary: Node, isSynchronous: boolean) {
  const waitsForNobody = ["alter system set synchronous_standby_names = ''", "select pg_reload_conf()"]
  if (isSynchronous) yield* Effect.addFinalizer(() => Effect.ignoreCause(run(primary, ...waitsForNobody)))
  yield* run(
    primary,
    `alter system set synchronous_standby_names = '${isSynchronous ? "*" : ""}'`,
    "select pg_reload_conf()"
  )
  const state = isSynchronous ? "sync" : "async"
  yield* until(
    `replication is ${state}`,
    holds(primary, `exists (select from pg_stat_replication where sync_state = '${state}')`)
  )
})

/** From then on the standby gets nothing more. */
export const cutOff = Effect.fnUntraced(function*(standby: Node) {
  yield* run(standby, "alter system set primary_conninfo = ''", "select pg_reload_conf()")
  yield* until("nothing is received", holds(standby, "not exists (select from pg_stat_wal_receiver)"))
})

/** Waits until the standby has replayed all that the primary has written so far. */
export const caughtUp = Effect.fnUntraced(function*(primary: Node, standby: Node) {
  const [row] = yield* Effect.orDie(primary.ask(Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => sql<{ readonly lsn: string }>`select pg_current_wal_insert_lsn()::text as lsn`
  )))
  yield* until("the standby has caught up", holds(standby, `pg_last_wal_replay_lsn() >= '${row?.lsn}'::pg_lsn`))
})

/** Makes a standby the primary, as an operator does. */
export const promote = (standby: Node) => run(standby, "select pg_promote(true, 60)")

export interface Proxy {
  /** For clients, of the database `postgres`. */
  readonly url: string
  /** Where connections go from now on; nowhere: none is let in. Those that there are, are cut. */
  readonly pointTo: (node: Node | undefined) => Effect.Effect<void>
}

/** Stands for what finds the primary, as a virtual address or a proxy with health checks does: clients know one place. */
export const startProxy: Effect.Effect<Proxy, never, Scope.Scope> = Effect.gen(function*() {
  let target: Node | undefined
  const sockets = new Set<net.Socket>()
  const listening = yield* Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer({ noDelay: true }, (client) => {
        if (target === undefined) return void client.destroy()
        const upstream = net.connect(path.join(target.directory, ".s.PGSQL.5432"))
        for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
          sockets.add(one)
          one.on("error", () => other.destroy())
          one.on("close", () => {
            sockets.delete(one)
            other.destroy()
          })
          one.pipe(other)
        }
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )
  const { port } = listening.address() as net.AddressInfo
  return {
    url: `postgresql://postgres@127.0.0.1:${port}/postgres`,
    pointTo: (node) =>
      Effect.sync(() => {
        target = node
        for (const socket of sockets) socket.destroy()
      })
  }
})
