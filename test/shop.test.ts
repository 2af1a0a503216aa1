/**
 * The shop of `examples/shop/`: its two processes on one database, and its page in a browser. What is stopped while orders are
 * in hand answers them, and leaves nothing half done.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { spawn } from "node:child_process"
import * as net from "node:net"
import * as path from "node:path"
import type { Page } from "playwright-core"
import { OrderPlaced, Shop } from "../examples/shop/domain.ts"
import { ByProduct, handleAll, readOrders, readProducts, ShopView } from "../examples/shop/readModel.ts"
import { hasBrowser, startBrowser } from "./support/browser.ts"
import { databaseLayer } from "./support/database.ts"
import { place, until } from "./support/processes.ts"

interface Program {
  /** Waits until its output has this; answers the first group. */
  readonly said: (pattern: RegExp) => Effect.Effect<string>
  /** Sends SIGTERM; answers the exit code, or the signal that ended it. */
  readonly stop: Effect.Effect<number | string | undefined>
}

const start = Effect.fnUntraced(function*(program: string) {
  const { database, url } = yield* place
  const { DATABASE_URL: _, ...inherited } = process.env
  const location = new URL(url)
  location.pathname = `/${database}`
  const file = path.resolve(import.meta.dirname, "../examples/shop", program)
  let output = ""
  let ended: number | string | undefined
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--conditions=@effect-message-store/source", file], {
        env: { ...inherited, PORT: "0", DATABASE_URL: location.href },
        stdio: ["ignore", "pipe", "pipe"]
      })
    ),
    (started) => Effect.sync(() => started.kill("SIGKILL"))
  )
  child.once("exit", (code, signal) => {
    ended = code ?? signal ?? "unknown"
  })
  for (const pipe of [child.stdout, child.stderr]) {
    pipe.setEncoding("utf8").on("data", (text: string) => {
      output += text
    })
  }
  return {
    said: Effect.fnUntraced(function*(pattern: RegExp) {
      yield* until(
        `${program} says ${pattern}`,
        Effect.suspend(() =>
          ended === undefined
            ? Effect.succeed(pattern.test(output))
            : Effect.die(new Error(`${program} has ended (${ended}):\n${output}`))
        ),
        60
      )
      return pattern.exec(output)?.[1] ?? ""
    }),
    stop: Effect.gen(function*() {
      yield* Effect.sync(() => child.kill("SIGTERM"))
      yield* until(`${program} ends`, Effect.sync(() => ended !== undefined), 15)
      return ended
    })
  } satisfies Program
})

const isRunning = /subscription example_shop_view_v1 is running/

/** Starts a server and a worker; answers where the page is, once both run and there is a read model. */
const startShop = Effect.gen(function*() {
  const worker = yield* start("worker.ts")
  const server = yield* start("server.ts")
  const origin = yield* server.said(/Listening on (http:\/\/127\.0\.0\.1:\d+)/)
  yield* worker.said(isRunning) // the read model may be that of another test
  yield* until("there is a read model", Effect.promise(async () => (await fetch(`${origin}/products`)).ok), 60)
  return { server, worker, origin }
})

const post = (origin: string, to: string, payload: unknown, method = "POST") =>
  Effect.promise(async () => {
    const response = await fetch(`${origin}${to}`, {
      method,
      headers: { "content-type": "application/json" },
      body: JSON.stringify(payload)
    })
    return { status: response.status, body: await response.json().catch(() => undefined) as unknown }
  })

const addTo = (origin: string, product: string, quantity: number) =>
  post(origin, `/products/${product}`, { name: product, cents: 1999, quantity }, "PUT")

/** Whether nobody listens there. */
const refuses = (origin: string) =>
  Effect.callback<boolean>((resume) => {
    const socket = net.connect(Number(new URL(origin).port), "127.0.0.1")
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    }).once("error", () => resume(Effect.succeed(true)))
  })

/** Runs an effect while a transaction does something that others wait for. */
const whileHeld = <A, E, R, B, E2, R2>(hold: Effect.Effect<B, E2, R2>, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const held = yield* Deferred.make<void>()
    const release = yield* Deferred.make<void>()
    const holding = yield* Effect.forkChild(sql.withTransaction(
      Effect.andThen(hold, Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(release)))
    ))
    yield* Deferred.await(held)
    const result = yield* effect
    yield* Deferred.succeed(release, undefined)
    yield* Fiber.join(holding)
    return result
  })

const ordersOf = (product: string) =>
  Shop.use((shop) => Stream.runCollect(shop.readTagged({ product }, { types: ["OrderPlaced"] })))

const layerShop = ShopView.layer.pipe(
  Layer.provideMerge(ByProduct.layer),
  Layer.provideMerge(Shop.layer),
  Layer.provideMerge(databaseLayer())
)

describe("the shop", () => {
  layer(layerShop, { excludeTestServices: true, timeout: "1 minute" })("of two processes", (it) => {
    it.effect("tells each error with its status, and takes nothing that its schemas refuse", () =>
      Effect.gen(function*() {
        const { origin } = yield* startShop
        assert.strictEqual((yield* addTo(origin, "chair", 12)).status, 200)
        assert.deepStrictEqual(yield* addTo(origin, "chair", 1), {
          status: 409,
          body: { _tag: "ProductExists", product: "chair" }
        })
        assert.strictEqual((yield* post(origin, "/products/chair/stock", { quantity: 1 })).status, 200)
        assert.deepStrictEqual(yield* post(origin, "/products/desk/stock", { quantity: 1 }), {
          status: 404,
          body: { _tag: "UnknownProduct", product: "desk" }
        })
        const order = (customer: string, quantity: number, product = "chair") =>
          post(origin, "/orders", { product, customer, quantity })
        assert.strictEqual((yield* order("Ada", 8)).status, 200)
        assert.deepStrictEqual(yield* order("Ada", 3), { status: 422, body: { _tag: "LimitReached", left: 2 } })
        assert.deepStrictEqual(yield* order("Grace", 6), { status: 409, body: { _tag: "OutOfStock", left: 5 } })
        assert.strictEqual((yield* order("Grace", 1, "desk")).status, 404)
        for (const customer of ["", " Ada", "A\u0000", "\ud800", "x".repeat(61)]) {
          assert.strictEqual((yield* order(customer, 1)).status, 400, JSON.stringify(customer))
        }
        assert.strictEqual((yield* order("Ada", 0)).status, 400)
        assert.lengthOf(yield* ordersOf("chair"), 1)
      }).pipe(Effect.scoped))

    it.effect("is started and ended as one", () =>
      Effect.gen(function*() {
        const both = yield* start("main.ts")
        const origin = yield* both.said(/Listening on (http:\/\/127\.0\.0\.1:\d+)/)
        yield* both.said(isRunning)
        assert.strictEqual(yield* both.stop, 0)
        assert.isTrue(yield* refuses(origin))
      }).pipe(Effect.scoped))

    it.effect("says that what was written is not shown yet, where no worker runs", () =>
      Effect.gen(function*() {
        const { origin, worker } = yield* startShop
        assert.strictEqual(yield* worker.stop, 0)
        const { body } = yield* addTo(origin, "bench", 1)
        const { position } = body as { readonly position: number }
        const read = Effect.promise(async () => {
          const response = await fetch(`${origin}/products?after=${position}`)
          return { status: response.status, text: await response.text() }
        })
        const late = yield* read
        assert.strictEqual(late.status, 503)
        assert.include(late.text, "NotProcessedError")
        yield* start("worker.ts")
        yield* until("it is shown", Effect.map(read, ({ status, text }) => status === 200 && text.includes("bench")))
      }).pipe(Effect.scoped))

    it.effect("sells no piece twice, whoever orders at once", () =>
      Effect.gen(function*() {
        const { origin } = yield* startShop
        const { origin: other } = yield* startShop // a second pair, on the same database
        yield* addTo(origin, "ticket", 20)
        const answers = yield* Effect.forEach(
          Array.from({ length: 60 }, (_, i) => i),
          (i) => post(i % 2 === 0 ? origin : other, "/orders", { product: "ticket", customer: `c${i}`, quantity: 1 }),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          [200, 409].map((status) => answers.filter((answer) => answer.status === status).length),
          [20, 40]
        )
        assert.lengthOf(yield* ordersOf("ticket"), 20)
      }).pipe(Effect.scoped))

    it.effect("answers what is in hand when it is stopped, and loses nothing", () =>
      Effect.gen(function*() {
        const { origin, server, worker } = yield* startShop
        const shop = yield* Shop
        const view = yield* ShopView
        yield* addTo(origin, "lamp", 10)
        // A page is open.
        const page = yield* Effect.promise(() => fetch(`${origin}/changes`))
        const ending = yield* Effect.forkChild(Effect.promise(() => page.text()))

        // Somebody else is about to order, too: the decision waits for that transaction.
        const others = new OrderPlaced({ order: "others", product: "lamp", customer: "Grace", quantity: 1 })
        const { ordering, stopping } = yield* whileHeld(
          shop.write("order-others", others),
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const placed = yield* Effect.forkChild(
              post(origin, "/orders", { product: "lamp", customer: "Ada", quantity: 2 })
            )
            yield* until(
              "the order waits",
              Effect.map(
                sql<{ readonly waiting: boolean }>`
                  select exists(select from pg_locks l join pg_stat_activity a using (pid)
                    where a.datname = current_database() and not l.granted) as waiting`,
                ([row]) => row?.waiting === true
              )
            )
            const stops = yield* Effect.forkChild(
              Effect.all([server.stop, worker.stop], { concurrency: "unbounded" })
            )
            yield* until(
              "the server takes no more connections",
              refuses(origin)
            )
            return { ordering: placed, stopping: stops }
          })
        )
        const answer = yield* Fiber.join(ordering)
        assert.strictEqual(answer.status, 200)
        assert.deepStrictEqual(yield* Fiber.join(stopping), [0, 0])
        yield* Fiber.join(ending)

        assert.deepStrictEqual(
          (yield* ordersOf("lamp")).map(({ message }) => (message as OrderPlaced).customer),
          ["Grace", "Ada"]
        )
        // The next worker goes on: each message counts once in the read model.
        const { position } = answer.body as { readonly position: number }
        yield* Effect.raceFirst(
          Effect.andThen(view.waitUntilProcessed(position, "20 seconds"), Effect.void),
          Effect.provide(
            Effect.never,
            Layer.mergeAll(ByProduct.layerProjector(), ShopView.layerHandler(handleAll))
          )
        )
        const lamp = (yield* readProducts).find(({ product }) => product === "lamp")
        assert.deepInclude(lamp, { stock: 7 })
        assert.deepStrictEqual((yield* readOrders("Ada")).filter(({ name }) => name === "lamp").length, 1)
      }).pipe(Effect.scoped))
  })

  if (hasBrowser) {
    layer(layerShop, { excludeTestServices: true, timeout: "1 minute" })("in a browser", (it) => {
      it.effect("shows what one ordered, and what others did, without a reload", () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const { origin, server, worker } = yield* startShop
          const browser = yield* startBrowser
          const faults: Array<string> = []
          const open = Effect.promise(async () => {
            const page = await (await browser.newContext()).newPage()
            page.on("pageerror", (error) => faults.push(String(error)))
            page.on("request", (request) => {
              if (!request.url().startsWith(origin) && !request.url().startsWith("data:")) faults.push(request.url())
            })
            await page.goto(origin)
            await page.locator("#live.on").waitFor()
            return page
          })
          const adas = yield* open
          const graces = yield* open
          const row = (page: Page) => page.locator("#products li").filter({ hasText: "onerror" })
          const told = (page: Page) => page.locator("#told").textContent()
          const order = (page: Page, quantity: number) =>
            Effect.promise(async () => {
              await row(page).locator("input").fill(`${quantity}`)
              await row(page).getByRole("button").click()
            })
          const says = (page: Page, text: string) =>
            until(`the page says ${text}`, Effect.promise(async () => await told(page) === text))

          // What people write is text.
          const name = "<img src=x onerror=\"document.title='taken'\">"
          yield* Effect.promise(async () => {
            await graces.evaluate(() => Object.assign(globalThis, { isNotReloaded: true }))
            await adas.locator("#customer").fill("Ada <b>")
            await graces.locator("#customer").fill("Grace")
            for (const [field, value] of Object.entries({ product: "lamp", name, price: "19.99", quantity: "3" })) {
              await adas.locator(`#add [name=${field}]`).fill(value)
            }
            await adas.locator("#add button").click()
          })
          yield* says(adas, "Added.")
          assert.strictEqual(yield* Effect.promise(() => row(adas).locator("b").textContent()), name)
          assert.strictEqual(
            yield* Effect.promise(() => row(adas).locator("span").textContent()),
            "$19.99 · 3 in stock"
          )
          yield* Effect.promise(() => row(graces).waitFor()) // live
          yield* Effect.promise(() => row(graces).locator("input").focus())

          // What one ordered is there when the page says so, however late the worker is: it cannot write meanwhile.
          yield* whileHeld(
            sql`lock table example_shop_orders_v1 in share mode`,
            Effect.gen(function*() {
              const reading = adas.waitForRequest((request) => request.url().includes("/orders?after="))
              yield* order(adas, 2)
              yield* Effect.promise(() => reading)
              assert.lengthOf(yield* ordersOf("lamp"), 1)
              assert.deepStrictEqual(yield* readOrders("Ada <b>"), [])
              assert.strictEqual(yield* Effect.promise(() => told(adas)), "Added.")
            })
          )
          yield* says(adas, `Ordered: 2 of ${name}.`)
          assert.strictEqual(yield* Effect.promise(() => adas.locator("#orders li").textContent()), `2 × ${name}`)
          assert.strictEqual(
            yield* Effect.promise(() => row(adas).locator("span").textContent()),
            "$19.99 · 1 in stock"
          )

          // The others see it, and are told what they cannot have.
          yield* Effect.promise(() => row(graces).getByText("1 in stock").waitFor())
          // Whoever is about to order is not disturbed: a focus is kept, and so is a click that has begun.
          assert.strictEqual(yield* Effect.promise(() => graces.locator("li input:focus").count()), 1)
          yield* order(graces, 2)
          yield* says(graces, "Only 1 left.")
          yield* order(graces, 1)
          yield* says(graces, `Ordered: 1 of ${name}.`)
          yield* Effect.promise(() => row(adas).getByText("0 in stock").waitFor())
          assert.isTrue(yield* Effect.promise(() => graces.evaluate(() => "isNotReloaded" in globalThis)))
          assert.strictEqual(yield* Effect.promise(() => adas.title()), "Shop")
          assert.deepStrictEqual(faults, [])

          // Pages are open when both are stopped.
          assert.deepStrictEqual(yield* Effect.all([server.stop, worker.stop], { concurrency: "unbounded" }), [0, 0])
          yield* Effect.promise(() => adas.locator("#live:not(.on)").waitFor())
          assert.deepStrictEqual(
            (yield* ordersOf("lamp")).map(({ message }) => (message as OrderPlaced).quantity),
            [2, 1]
          )
          assert.deepInclude((yield* readProducts)[0], { stock: 0 })
        }).pipe(Effect.scoped), 120_000)
    })
  } else console.log("Chromium is not installed: the test of the page is skipped")
})
