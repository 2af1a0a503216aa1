/** A server that speaks PostgreSQL's protocol, and is none: it answers as the engines do that look like it. */
import { Effect, type Scope } from "effect"
import * as net from "node:net"

/** What is answered to a statement: a row of texts by the names of columns, or an error by its SQLSTATE. */
export type Answer =
  | { readonly row: Readonly<Record<string, string | boolean>> }
  | { readonly code: string; readonly message: string }

export interface Engine {
  readonly url: string
  /** The statements that it was sent, in their order. */
  readonly asked: ReadonlyArray<string>
}

const text = (value: string): Buffer => Buffer.from(`${value}\0`)
const int16 = (value: number): Buffer => {
  const buffer = Buffer.alloc(2)
  buffer.writeInt16BE(value)
  return buffer
}
const int32 = (value: number): Buffer => {
  const buffer = Buffer.alloc(4)
  buffer.writeInt32BE(value)
  return buffer
}
const message = (type: string, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}
const ready = message("Z", Buffer.from("I"))

const boolean = 16
const varying = 25

const isBinary = (formats: ReadonlyArray<number>, i: number): boolean =>
  (formats.length === 1 ? formats[0] : formats[i]) === 1

const described = (row: Readonly<Record<string, string | boolean>>, formats: ReadonlyArray<number>): Buffer => {
  const columns = Object.entries(row)
  return message(
    "T",
    int16(columns.length),
    ...columns.flatMap(([name, value], i) => {
      const [type, size] = typeof value === "boolean" ? [boolean, 1] : [varying, -1]
      const format = isBinary(formats, i) ? 1 : 0
      return [text(name), int32(0), int16(0), int32(type), int16(size), int32(-1), int16(format)]
    })
  )
}

/** Of a Bind message, behind its names: in which formats columns are wanted; none: as text, one: all of them so. */
const resultFormats = (body: Buffer): ReadonlyArray<number> => {
  let at = 2 + 2 * body.readInt16BE(0)
  const parameters = body.readInt16BE(at)
  at += 2
  for (let i = 0; i < parameters; i++) at += 4 + Math.max(0, body.readInt32BE(at))
  return Array.from({ length: body.readInt16BE(at) }, (_, i) => body.readInt16BE(at + 2 + 2 * i))
}

const sent = (row: Readonly<Record<string, string | boolean>>, formats: ReadonlyArray<number>): Buffer =>
  message(
    "D",
    int16(Object.keys(row).length),
    ...Object.values(row).flatMap((value, i) => {
      const bytes = typeof value === "string"
        ? Buffer.from(value)
        : isBinary(formats, i)
        ? Buffer.from([value ? 1 : 0])
        : Buffer.from(value ? "t" : "f")
      return [int32(bytes.length), bytes]
    })
  )

const failed = ({ code, message: said }: { readonly code: string; readonly message: string }): Buffer =>
  message(
    "E",
    ...[["S", "ERROR"], ["V", "ERROR"], ["C", code], ["M", said]].flatMap(([field = "", value = ""]) => [
      Buffer.from(field),
      text(value)
    ]),
    Buffer.from([0])
  )

/** The extended protocol, as far as one statement at a time needs it. */
const serve = (socket: net.Socket, answer: (statement: string) => Answer): void => {
  let received = Buffer.alloc(0)
  let hasStarted = false
  let isSkipping = false
  let formats: ReadonlyArray<number> = []
  const statements = new Map<string, Answer>()
  const parameters = new Map<string, number>()
  let bound: Answer = { row: {} }
  const write = (buffer: Buffer) => void (isSkipping || socket.write(buffer))
  const fail = (error: Extract<Answer, { readonly code: string }>) => {
    write(failed(error))
    isSkipping = true
  }
  const describe = (what: Answer) => "row" in what ? write(described(what.row, formats)) : fail(what)

  const handle = (type: string, body: Buffer): void => {
    switch (type) {
      case "P": {
        const name = body.subarray(0, body.indexOf(0)).toString()
        const rest = body.subarray(body.indexOf(0) + 1)
        const statement = rest.subarray(0, rest.indexOf(0)).toString()
        const parsed = answer(statement)
        statements.set(name, parsed)
        parameters.set(name, new Set(statement.match(/\$\d+/g)).size)
        return "code" in parsed ? fail(parsed) : write(message("1"))
      }
      case "B": {
        const rest = body.subarray(body.indexOf(0) + 1)
        bound = statements.get(rest.subarray(0, rest.indexOf(0)).toString()) ?? { row: {} }
        formats = resultFormats(rest.subarray(rest.indexOf(0) + 1))
        return write(message("2"))
      }
      case "D": {
        if (body.toString("latin1", 0, 1) !== "S") return describe(bound)
        const name = body.subarray(1, body.indexOf(0)).toString()
        const count = parameters.get(name) ?? 0
        write(message("t", int16(count), ...Array.from({ length: count }, () => int32(varying))))
        return describe(statements.get(name) ?? bound)
      }
      case "E": {
        if ("row" in bound) write(Buffer.concat([sent(bound.row, formats), message("C", text("SELECT 1"))]))
        return
      }
      case "S":
        isSkipping = false
        return write(ready)
      case "X":
        return void socket.end()
      default:
        return undefined
    }
  }

  socket.on("error", () => socket.destroy())
  socket.on("data", (chunk) => {
    received = Buffer.concat([received, chunk])
    if (!hasStarted) {
      if (received.length < 4 || received.length < received.readInt32BE(0)) return
      received = received.subarray(received.readInt32BE(0))
      hasStarted = true
      write(Buffer.concat([message("R", int32(0)), message("K", int32(1), int32(1)), ready]))
    }
    while (received.length >= 5 && received.length > received.readInt32BE(1)) {
      const length = received.readInt32BE(1) + 1
      handle(received.toString("latin1", 0, 1), received.subarray(5, length))
      received = received.subarray(length)
    }
  })
}

/** Starts one, which ends with the scope. */
export const startEngine = (answer: (statement: string) => Answer): Effect.Effect<Engine, never, Scope.Scope> => {
  const asked: Array<string> = []
  const sockets = new Set<net.Socket>()
  return Effect.map(
    Effect.acquireRelease(
      Effect.callback<net.Server>((resume) => {
        const server = net.createServer((socket) => {
          sockets.add(socket)
          serve(socket, (statement) => {
            asked.push(statement)
            return answer(statement)
          })
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.callback<void>((resume) => {
          for (const socket of sockets) socket.destroy()
          server.close(() => resume(Effect.void))
        })
    ),
    (server) => ({ url: `postgresql://app@127.0.0.1:${(server.address() as net.AddressInfo).port}/app`, asked })
  )
}
