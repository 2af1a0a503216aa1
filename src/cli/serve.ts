/** A server of node's that answers with a handler of web requests. */
import { Effect, type Scope } from "effect"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { CommandError } from "./failure.ts"

type Handler = (request: Request) => Promise<Response>

const toRequest = (incoming: IncomingMessage, signal: AbortSignal): Request => {
  const headers = new Headers()
  for (const [name, value] of Object.entries(incoming.headers)) {
    for (const each of [value ?? []].flat()) headers.append(name, each)
  }
  const { method = "GET", url = "/" } = incoming
  const hasBody = method !== "GET" && method !== "HEAD"
  return new Request(`http://localhost${url.startsWith("/") ? url : "/"}`, {
    method,
    headers,
    signal,
    ...hasBody ? { body: Readable.toWeb(incoming) as ReadableStream<Uint8Array>, duplex: "half" } : {}
  })
}

const answer = async (handler: Handler, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
  const gone = new AbortController()
  outgoing.once("close", () => gone.abort())
  const response = await handler(toRequest(incoming, gone.signal))
  const cookies = response.headers.getSetCookie()
  outgoing.writeHead(response.status, {
    ...Object.fromEntries(response.headers),
    ...cookies.length > 0 ? { "set-cookie": cookies } : {}
  })
  if (response.body === null || incoming.method === "HEAD") {
    await response.body?.cancel()
    outgoing.end()
  } else {
    await pipeline(Readable.fromWeb(response.body as Parameters<typeof Readable.fromWeb>[0]), outgoing)
  }
}

/** Listens until the scope closes; answers the port. What is under way then is cut off. */
export const serve = (
  handler: Handler,
  { host, port }: { readonly host: string; readonly port: number }
): Effect.Effect<number, CommandError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server, CommandError>((resume) => {
      const server = createServer((incoming, outgoing) => {
        answer(handler, incoming, outgoing).catch(() => outgoing.destroy())
      })
      server.once("error", (error: NodeJS.ErrnoException) => {
        const reason = error.code === "EADDRINUSE"
          ? `port ${port} of ${host} is taken: give another --port, or 0 for any that is free`
          : `cannot listen on port ${port} of ${host} (${error.message}): give another --port, or --host`
        resume(Effect.fail(new CommandError({ reason })))
      })
      server.listen({ host, port }, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  ).pipe(Effect.map((server) => (server.address() as AddressInfo).port)) // it listens on a port, not on a path
