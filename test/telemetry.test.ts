/**
 * Telemetry as those see it who collect it: by OTLP, from Effect's exporter. What the documents, the dashboard and the alerts
 * name is what is exported, under the names that Prometheus gives it.
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, Metric, Schedule, Schema } from "effect"
import { AggregatedStream, Fold, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { FetchHttpClient } from "effect/http"
import { Otlp } from "effect/observability"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import { createServer } from "node:http"
import * as path from "node:path"
import { attribute, metric } from "../src/internal/telemetry.ts"

const root = path.resolve(import.meta.dirname, "..")
const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8")

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: number | string; readonly doubleValue?: number }
}

interface Points {
  readonly dataPoints: ReadonlyArray<{ readonly attributes: ReadonlyArray<Attribute> }>
}

interface ExportedMetric {
  readonly name: string
  readonly unit: string
  readonly sum?: Points & { readonly isMonotonic: boolean }
  readonly gauge?: Points
  readonly histogram?: Points
}

interface ExportedSpan {
  readonly name: string
  readonly kind: number
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes: ReadonlyArray<Attribute>
  readonly links: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
}

interface ExportedLine {
  readonly traceId?: string
  readonly body: { readonly stringValue?: string }
  readonly attributes: ReadonlyArray<Attribute>
}

const valuesOf = (attributes: ReadonlyArray<Attribute>): Record<string, unknown> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))

/** A collector that keeps what it is sent. */
const collector = Effect.acquireRelease(
  Effect.callback<{ readonly url: string; readonly bodies: Map<string, Array<string>>; readonly close: () => void }>(
    (resume) => {
      const bodies = new Map<string, Array<string>>()
      const server = createServer((request, response) => {
        let body = ""
        request.setEncoding("utf8").on("data", (text: string) => {
          body += text
        }).on("end", () => {
          bodies.set(request.url ?? "", [...bodies.get(request.url ?? "") ?? [], body])
          response.writeHead(200, { "content-type": "application/json" }).end("{}")
        })
      }).listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = address !== null && typeof address === "object" ? address.port : 0
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}`, bodies, close: () => server.close() }))
      })
    }
  ),
  ({ close }) => Effect.sync(close)
)

const all = <A>(
  bodies: Map<string, Array<string>>,
  signal: string,
  ...[outer, inner, kept]: [string, string, string]
) =>
  (bodies.get(`/v1/${signal}`) ?? []).flatMap((body) =>
    (JSON.parse(body)[outer] as Array<Record<string, Array<Record<string, Array<A>>>>>).flatMap((resource) =>
      (resource[inner] ?? []).flatMap((scope) => scope[kept] ?? [])
    )
  )

const collected = (bodies: Map<string, Array<string>>) => ({
  spans: all<ExportedSpan>(bodies, "traces", "resourceSpans", "scopeSpans", "spans"),
  // Each time all of them: the last one that has a metric counts.
  metrics: Array.from(
    new Map(
      all<ExportedMetric>(bodies, "metrics", "resourceMetrics", "scopeMetrics", "metrics").map((each) => [
        each.name,
        each
      ])
    ).values()
  ),
  lines: all<ExportedLine>(bodies, "logs", "resourceLogs", "scopeLogs", "logRecords")
})

const sanitized = (name: string) => name.replaceAll(/[^a-zA-Z0-9_:]/g, "_")

/** https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#otlp-metric-points-to-prometheus */
const prometheusName = ({ gauge, name, sum, unit }: ExportedMetric): string => {
  const suffixes = [
    ...unit === "s" ? ["seconds"] : unit === "1" && gauge !== undefined ? ["ratio"] : [],
    ...sum?.isMonotonic === true ? ["total"] : []
  ]
  assert.match(unit, /^(s|\{\w+\})$/, name)
  return [sanitized(name), ...suffixes].join("_")
}

/** The series that Prometheus has of metrics, with their labels. */
const seriesOf = (metrics: ReadonlyArray<ExportedMetric>): ReadonlyMap<string, ReadonlySet<string>> =>
  new Map(metrics.flatMap((each) => {
    const { dataPoints } = each.sum ?? each.gauge ?? each.histogram ?? { dataPoints: [] }
    const labels = dataPoints.flatMap(({ attributes }) => attributes.map(({ key }) => sanitized(key)))
    const name = prometheusName(each)
    return each.histogram === undefined
      ? [[name, new Set(labels)] as const]
      : ["_bucket", "_sum", "_count"].map((part) => [`${name}${part}`, new Set([...labels, "le"])] as const)
  }))

/** The metrics of a PromQL expression, each with the labels that it is selected by; and the labels of its groups. */
const parsed = (expression: string) => {
  const text = expression.replaceAll(/"(?:[^"\\]|\\.)*"/g, "\"\"")
  const groups = Array.from(
    text.matchAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g),
    ([, labels = ""]) => labels.split(",").map((label) => label.trim())
  ).flat()
  const rest = text.replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, " ")
    .replaceAll(/\[[^\]]*\]/g, " ")
  const selectors = Array.from(
    rest.matchAll(/(?<![\w.:{,"])([a-zA-Z_:][\w:]*)\b\s*(?:\{([^}]*)\}|(?!\s*\())/g),
    ([, name = "", matchers = ""]) => ({
      name,
      labels: Array.from(matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g), ([, label = ""]) => label)
    })
  ).filter(({ name }) => !["and", "or", "unless", "offset", "bool", "sum", "max", "count"].includes(name))
  return { groups, selectors }
}

const dashboard: {
  readonly panels: ReadonlyArray<
    { readonly title: string; readonly targets?: ReadonlyArray<{ readonly expr: string }> }
  >
  readonly templating: { readonly list: ReadonlyArray<{ readonly type: string; readonly definition?: string }> }
} = JSON.parse(read("docs/grafana/effect-message-store.json"))

/** `label_values(selector, label)` asks for a label of a metric. */
const variables = dashboard.templating.list.flatMap(({ definition }) => {
  const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(definition ?? "") ?? []
  return selector === undefined || label === undefined ? [] : [`sum by (${label}) (${selector})`]
})
const panels = dashboard.panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
const alerts = Array.from(
  read("docs/grafana/alerts.yaml").matchAll(/^ {8}expr: (?:\|\n((?: {10,}.*\n)+)|(.*)$)/gm),
  ([, several, one]) => several ?? one ?? ""
)

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", { ...Message.fields, cents: Schema.Int }) {}
class Orders extends MessageStore.Service<Orders>()("test/MeasuredOrders", { name: "orders", schema: Ordered }) {}
class AllOrders extends AggregatedStream.Service<AllOrders>()("test/MeasuredAllOrders", {
  store: Orders,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.constant()
}) {}
class Invoices extends Subscription.Service<Invoices>()("test/MeasuredInvoices", {
  stream: AllOrders,
  name: "invoices",
  retry: Schedule.recurs(0)
}) {}

const total = Fold.withSnapshot(
  Fold.make<Ordered>()({ initial: 0, Ordered: (sum, { cents }) => sum + cents }),
  { name: "total", schema: Schema.Number, version: 1, every: 1 }
)

/** Does what has metrics, against the store in memory. */
const everything = Effect.gen(function*() {
  const orders = yield* Orders
  const invoices = yield* Invoices
  yield* orders.write("order-1", [new Ordered({ cents: 1 }), new Ordered({ cents: 0 })])
  yield* Effect.flip(orders.write("order-1", new Ordered({ cents: 1 }), { expectedVersion: 0 }))
  yield* orders.update("order-2", total, () => new Ordered({ cents: 2 }))
  yield* orders.schedule("order-3", new Ordered({ cents: 3 }), { at: DateTime.makeUnsafe(0) })
  yield* orders.scheduler.runOnce
  yield* (yield* AllOrders).projector.runOnce
  yield* invoices.drain(({ cents }) => cents === 0 ? Effect.die(new TypeError("free")) : Effect.void)
})

/** Runs it, and gives what a collector got until the exporter was closed. */
const run = Effect.scoped(Effect.gen(function*() {
  const { bodies, url } = yield* collector
  const Exported = Otlp.layerJson({
    baseUrl: url,
    resource: { serviceName: "test" },
    loggerMergeWithExisting: false
  }).pipe(Layer.provide(FetchHttpClient.layer))
  const Services = Invoices.layer.pipe(
    Layer.provideMerge(AllOrders.layer),
    Layer.provideMerge(Orders.layerMemory),
    Layer.provideMerge(Exported)
  )
  yield* everything.pipe(
    Effect.provide(Services),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
  return collected(bodies)
}))
let once: Promise<ReturnType<typeof collected>> | undefined
const exported = Effect.promise(() => once ??= Effect.runPromise(run))

describe("telemetry by OTLP", () => {
  it.live("exports every metric under its name, each point with what it is of", () =>
    Effect.gen(function*() {
      const { metrics } = yield* exported
      const own = metrics.filter(({ name }) => /^(messaging|effect_message_store)\./.test(name))
      assert.deepStrictEqual(own.map(({ name }) => name).toSorted(), Object.values(metric).toSorted())
      for (const each of own) {
        for (const { attributes } of (each.sum ?? each.gauge ?? each.histogram)?.dataPoints ?? []) {
          const { [attribute.system]: system, [attribute.destination]: destination } = valuesOf(attributes)
          assert.strictEqual(system, "effect_message_store", each.name)
          assert.include(["orders", "all_orders"], destination, each.name)
        }
      }
    }))

  it.live("reaches a collector from the example: traces that are linked, metrics, and lines of the log", () =>
    Effect.scoped(Effect.gen(function*() {
      const { bodies, url } = yield* collector
      const { code, output } = yield* Effect.promise(() => runExample(url))
      assert.strictEqual(code, 0, output)
      assert.include(output, "1 handled, 1 parked")
      const { lines, metrics, spans } = collected(bodies)
      const named = (name: string) => spans.filter((each) => each.name === name)
      const requests = named("POST /orders")
      const writes = named("write orders")
      const handled = named("handle all_orders")
      assert.deepStrictEqual([requests.length, writes.length, handled.length], [2, 2, 3])
      assert.deepStrictEqual(writes.map(({ parentSpanId }) => parentSpanId), requests.map(({ spanId }) => spanId))
      assert.deepStrictEqual(writes.map(({ kind }) => kind), [4, 4]) // producers
      const links = handled.map(({ kind, links: [link], traceId }) => {
        assert.strictEqual(kind, 5) // consumer
        assert.notInclude(requests.map((each) => each.traceId), traceId)
        return [link?.traceId, link?.spanId]
      })
      const [first, second] = writes.map(({ spanId, traceId }) => [traceId, spanId])
      assert.deepStrictEqual(links as unknown, [first, second, second])
      const [failed] = handled.slice(-1).map(({ attributes }) => valuesOf(attributes))
      assert.include(failed, {
        [attribute.stream]: "order-2",
        [attribute.type]: "OrderPlaced",
        [attribute.consumerGroup]: "invoices",
        [attribute.errorType]: "NoPrice"
      })
      assert.strictEqual(Number(failed?.[attribute.attempt]), 2)

      const invoice = lines.find(({ body }) => body.stringValue === "an invoice of 42")
      assert.strictEqual(invoice?.traceId, handled[0]?.traceId)
      const annotations = { subscription: "invoices", stream: "order-1", type: "OrderPlaced" }
      assert.include(valuesOf(invoice?.attributes ?? []), annotations)
      for (const key of ["messageId", "partition", "position", "attempt"]) {
        assert.property(valuesOf(invoice?.attributes ?? []), key)
      }

      // What is scraped from the process has the names that come of OTLP.
      const scraped = Array.from(output.matchAll(/^# TYPE (\w+) /gm), ([, name = ""]) => name)
      assert.deepStrictEqual(scraped.toSorted(), metrics.map(prometheusName).toSorted())
      assert.isAbove(scraped.length, 10)
    })))
})

const runExample = (url: string): Promise<{ readonly code: number | null; readonly output: string }> => {
  const command = ["--conditions=@effect-message-store/source", path.join(root, "examples/26-telemetry.ts")]
  const child = spawn(process.execPath, command, {
    env: { ...process.env, OTEL_EXPORTER_OTLP_ENDPOINT: url },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text
    })
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, output }))
  })
}

describe("docs/grafana", () => {
  it("has queries, and the parser finds what they name", () => {
    assert.isAtLeast(panels.length, 16)
    assert.lengthOf(variables, 2)
    assert.lengthOf(alerts, Array.from(read("docs/grafana/alerts.yaml").matchAll(/^ {6}- alert: /gm)).length)
    assert.isAtLeast(alerts.length, 8)
    assert.deepStrictEqual(
      parsed("histogram_quantile(0.9, sum by (le, a) (rate(x_bucket{b=~\"c,d{\", e!=\"\"}[5m]))) / y offset 1h > 3"),
      { groups: ["le", "a"], selectors: [{ name: "x_bucket", labels: ["b", "e"] }, { name: "y", labels: [] }] }
    )
  })

  it.live("names in every query of the dashboard and of the alerts series and labels that are exported", () =>
    Effect.gen(function*() {
      const series = seriesOf((yield* exported).metrics)
      for (const expression of [...panels, ...variables, ...alerts]) {
        const { groups, selectors } = parsed(expression)
        assert.isNotEmpty(selectors, expression)
        for (const { labels, name } of selectors) {
          assert.isTrue(series.has(name), `${name} is not exported: ${expression}`)
          for (const label of [...labels, ...groups]) {
            assert.isTrue(series.get(name)?.has(label), `${name} has no ${label}: ${expression}`)
          }
        }
      }
    }))

  it.live("shows every metric", () =>
    Effect.gen(function*() {
      const shown = new Set(panels.flatMap((expression) => parsed(expression).selectors.map(({ name }) => name)))
      for (const each of (yield* exported).metrics) {
        if (!/^(messaging|effect_message_store)\./.test(each.name)) continue
        const name = prometheusName(each)
        assert.isTrue([name, `${name}_bucket`, `${name}_count`].some((one) => shown.has(one)), name)
      }
    }))
})

describe("docs/telemetry.md", () => {
  const document = read("docs/telemetry.md")
  const rows = Array.from(document.matchAll(/^\| (.*) \|$/gm), ([, row = ""]) => row.split(/ ?\| ?/))
  const cells = rows.map((row) => row.map((cell) => /^`([^`]*)`$/.exec(cell)?.[1] ?? cell))

  it.live("lists the metrics with their units and their names in Prometheus, and no others", () =>
    Effect.gen(function*() {
      const { metrics } = yield* exported
      const listed = cells.filter(([name = ""]) => (Object.values(metric) as Array<string>).includes(name))
      assert.lengthOf(listed, Object.values(metric).length)
      for (const [name, prometheus, unit, text = ""] of listed) {
        const found = metrics.find((each) => each.name === name)
        if (found === undefined) return assert.fail(`${name} is not exported`)
        assert.deepStrictEqual([prometheus, unit], [prometheusName(found), found.unit])
        const kind = found.histogram !== undefined ? "histogram" : found.gauge !== undefined ? "gauge" : "counter"
        assert.isTrue(text.startsWith(kind), `${name} is a ${kind}`)
      }
    }))

  it("lists the attributes of spans, and no others", () => {
    const listed = cells.map(([name = ""]) => name).filter((name) => /^(messaging|error)\.[\w.]+$/.test(name))
    assert.deepStrictEqual(
      listed.filter((name) => !(Object.values(metric) as Array<string>).includes(name)).toSorted(),
      Object.values(attribute).toSorted()
    )
  })

  it("lists the spans, with the types of their operations, and the alerts", () => {
    const source = fs.globSync("src/{store,postgres,subscription}/**/*.ts", { cwd: root }).map(read).join("\n") +
      read("src/Projector.ts")
    const operations = [
      ...Array.from(source.matchAll(/\boperation\("(\w+)"(?:, "(\w+)")?\)/g)),
      ...Array.from(source.matchAll(/\battributesOf\(\w+, "(\w+)", (?:"(\w+)"|undefined)\)/g))
    ].map(([, name, type = ""]) => `${name} ${type}`)
    const spans = cells.flatMap(([span = "", kind = "", type = ""]) =>
      ["producer", "client", "consumer", "internal"].includes(kind) ? [`${span.split(" ")[0]} ${type.trim()}`] : []
    )
    assert.isAbove(spans.length, 12)
    // The scheduler counts what it sends, and has no span for it.
    assert.deepStrictEqual(
      spans.toSorted(),
      Array.from(new Set(operations)).filter((each) => each !== "schedule send").toSorted()
    )
    const alertNames = Array.from(read("docs/grafana/alerts.yaml").matchAll(/- alert: (\w+)/g), ([, name = ""]) => name)
    assert.includeMembers(cells.map(([name = ""]) => name), alertNames)
  })
})
