// What the pages do beside what they show: they are read again when something has changed, the charts are drawn, and `/` leads
// to the search. Without it every page works, and stands still.

/** @typedef {{ at: number, rate?: number, lag: ReadonlyArray<readonly [string, number, number]> }} Sample */

/** The shortest time between two readings of a page, and the longest while it is live, in milliseconds. */
const shortest = 1500
const longest = 10_000

/** How much of the time the charts show, in seconds. */
const leastShown = 60
const longestShown = 300

/** @type {Array<Sample>} */
let samples = []

/** @type {EventSource | undefined} */
let source
let isWanted = true
let isReading = false
let readAt = performance.now()
/** How long the last reading took. */
let took = 0
let state = ""
/** @type {number | undefined} */
let silence

const live = /** @type {HTMLButtonElement | null} */ (document.getElementById("live"))
const stale = document.getElementById("stale")
const main = () => document.getElementById("main")
const isLive = () => main()?.hasAttribute("data-live") === true

// ---- Charts

/** Of the numbers beside an axis: 1.2k */
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 })

/** @param {number} milliseconds */
const duration = (milliseconds) => {
  const seconds = milliseconds / 1000
  if (seconds < 1) return `${Math.round(milliseconds)} ms`
  if (seconds < 120) return `${Math.round(seconds)} s`
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`
}

/** @param {HTMLElement} element @returns {[Array<number>, Array<number | null>]} */
const dataOf = (element) => {
  const { chart, of } = element.dataset
  const at = samples.map((sample) => sample.at / 1000)
  const values = samples.map((sample) => {
    if (chart === "rate") return sample.rate ?? null
    const found = sample.lag.find(([name]) => name === of)
    return found === undefined ? null : chart === "lag" ? found[1] : found[2]
  })
  return [at, values]
}

/** @type {Map<HTMLElement, { readonly plot: uPlot, readonly ended: () => void }>} */
const charts = new Map()

/** What the style says in this theme. @param {string} name */
const colour = (name) => {
  const probe = document.body.appendChild(document.createElement("span"))
  probe.style.color = `var(${name})`
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

/** @param {HTMLElement} element */
const draw = (element) => {
  const isLarge = element.classList.contains("large")
  const isAge = element.dataset["chart"] === "age"
  const say = isAge ? duration : (/** @type {number} */ value) => short.format(value)
  const line = colour(`--chart-${element.dataset["chart"]}`)
  const size = () => ({ width: Math.max(40, element.clientWidth), height: isLarge ? 170 : 28 })
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" }
  const readout = isLarge ? document.createElement("output") : undefined
  if (readout !== undefined) {
    readout.setAttribute("aria-hidden", "true")
    element.append(readout)
  }
  const now = () => (samples.at(-1)?.at ?? Date.now()) / 1000
  /** From the first sample on, so that a chart is not empty for long. */
  const first = () => now() - Math.min(longestShown, Math.max(leastShown, now() - (samples[0]?.at ?? 0) / 1000))
  const plot = new uPlot({
    ...size(),
    padding: isLarge ? [14, 20, 0, 0] : [3, 2, 3, 2],
    legend: { show: false },
    cursor: isLarge ? { y: false, sync: { key: "time" }, points: { size: 7 } } : { show: false },
    scales: {
      x: { range: () => [first(), now()] },
      y: { range: (_, __, maximum) => [0, Math.max(1, maximum ?? 0) * 1.08] }
    },
    axes: isLarge
      ? [
        { ...axis, size: 30, gap: 6, space: 90, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toLocaleTimeString("en-GB")) },
        { ...axis, size: 58, gap: 8, space: 34, values: (_, ticks) => ticks.map(say) }
      ]
      : [{ show: false }, { show: false }],
    series: [{}, { stroke: line, width: isLarge ? 1.75 : 1.25, fill: `color-mix(in srgb, ${line} 14%, transparent)`, points: { show: false }, spanGaps: true }],
    hooks: {
      setCursor: [(/** @type {uPlot} */ self) => {
        if (readout === undefined) return
        const i = self.cursor.idx
        const [at, value] = i === null || i === undefined ? [] : [self.data[0][i], self.data[1]?.[i]]
        readout.textContent = at === undefined || value === undefined || value === null
          ? ""
          : `${new Date(at * 1000).toLocaleTimeString("en-GB")}  ${say(value)}`
      }]
    }
  }, dataOf(element), element)
  const observer = new ResizeObserver(() => plot.setSize(size()))
  observer.observe(element)
  charts.set(element, {
    plot,
    ended: () => {
      observer.disconnect()
      plot.destroy()
      readout?.remove()
    }
  })
}

const drawAll = () => {
  for (const [element, { ended }] of charts) {
    if (element.isConnected) continue
    ended()
    charts.delete(element)
  }
  for (const element of document.querySelectorAll("[data-chart]")) {
    if (!(element instanceof HTMLElement)) continue
    const chart = charts.get(element)
    if (chart === undefined) draw(element)
    else chart.plot.setData(dataOf(element))
  }
}

/** The colours are others then. */
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { ended } of charts.values()) ended()
  charts.clear()
  drawAll()
})

// ---- Pages

/** @param {string} text */
const say = (text) => {
  if (stale === null) return
  stale.hidden = text === ""
  if (stale.textContent !== text) stale.textContent = text
}

/** What somebody has entered, opened, or drawn stays; the rest becomes what the server says. @param {Document} read */
const show = (read) => {
  for (const id of ["pages", "main"]) {
    const [old, now] = [document.getElementById(id), read.getElementById(id)]
    if (old === null || now === null) continue
    Idiomorph.morph(old, now, {
      callbacks: {
        beforeNodeMorphed: (before) =>
          !(before instanceof HTMLElement &&
            (before.hasAttribute("data-chart") || before.matches("input:not([type=hidden]), select, textarea"))),
        beforeAttributeUpdated: (attribute) => attribute !== "open"
      }
    })
  }
  document.title = read.title
}

const read = async () => {
  if (isReading) return
  isReading = true
  const begin = performance.now()
  const of = location.href
  try {
    const response = await fetch(of, { headers: { accept: "text/html" }, redirect: "error" })
    const text = await response.text()
    if (location.href !== of) return
    if (response.status === 401) return location.reload()
    show(new DOMParser().parseFromString(text, "text/html"))
    say("")
    drawAll()
  } catch {
    say("The server does not answer: what is shown here may be old. Trying again …")
  } finally {
    readAt = performance.now()
    took = readAt - begin
    isReading = false
  }
}

let isDue = false

/** Reads the page again, soon. */
const soon = () => {
  if (isDue || !isWanted || !isLive()) return
  isDue = true
  setTimeout(() => {
    isDue = false
    // What is being answered, or chosen, is not to move.
    if (document.querySelector("details.confirm[open], select:focus") === null) return void read()
    readAt = performance.now()
    soon()
  }, Math.max(0, readAt + Math.max(shortest, 4 * took) - performance.now()))
}

/** @param {"live" | "paused" | "waiting"} to */
const setLive = (to) => {
  if (live === null) return
  live.hidden = !isLive()
  live.dataset["state"] = to
  live.textContent = to === "live" ? "live" : to === "paused" ? "paused" : "waiting"
  live.setAttribute("aria-pressed", String(to !== "paused"))
  live.title = to === "paused" ? "Go on showing what happens" : "Stop showing what happens"
}

const heard = () => {
  setLive("live")
  clearTimeout(silence)
  silence = setTimeout(() => setLive("waiting"), 12_000)
}

const listen = () => {
  const url = document.body.dataset["events"]
  if (source !== undefined || url === undefined || !isWanted || document.hidden) return
  source = new EventSource(url)
  source.addEventListener("open", heard)
  source.addEventListener("history", ({ data }) => {
    const last = samples.at(-1)?.at ?? 0
    /** @type {Array<Sample>} */
    const history = JSON.parse(data)
    samples = [...samples, ...history.filter(({ at }) => at > last)].slice(-600)
    drawAll()
  })
  source.addEventListener("sample", ({ data }) => {
    heard()
    /** @type {Sample & { readonly state: string }} */
    const sample = JSON.parse(data)
    if (sample.at > (samples.at(-1)?.at ?? 0)) samples = [...samples, sample].slice(-600)
    drawAll()
    if (sample.state !== state || performance.now() - readAt > longest || stale?.hidden === false) soon()
    state = sample.state
  })
  source.addEventListener("failed", () => say("The database cannot be asked: what is shown here may be old. Trying again …"))
  source.addEventListener("error", () => {
    if (source?.readyState !== EventSource.CLOSED) return
    source = undefined
    setLive("waiting")
    setTimeout(listen, 10_000)
  })
}

const stop = () => {
  source?.close()
  source = undefined
  clearTimeout(silence)
}

live?.addEventListener("click", () => {
  isWanted = !isWanted
  if (isWanted) {
    setLive("waiting")
    listen()
    soon()
  } else {
    stop()
    setLive("paused")
  }
})

// A browser has few connections to a host: pages that nobody sees need none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return stop()
  listen()
  soon()
})
addEventListener("pagehide", stop)
addEventListener("pageshow", ({ persisted }) => persisted && listen())

// ---- Keys

document.addEventListener("keydown", (event) => {
  const { target } = event
  const isTyping = target instanceof HTMLElement && target.matches("input:not([type=checkbox]), textarea, select")
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault()
    const find = document.querySelector(".find input")
    if (find instanceof HTMLInputElement) find.select()
  }
  if (event.key === "Escape" && target instanceof HTMLElement) {
    const open = target.closest("details.confirm[open]")
    if (open === null) return
    open.removeAttribute("open")
    open.querySelector("summary")?.focus()
  }
})

/** One question at a time. */
document.addEventListener("toggle", ({ target }) => {
  if (!(target instanceof HTMLDetailsElement) || !target.open || !target.classList.contains("confirm")) return
  for (const other of document.querySelectorAll("details.confirm[open]")) {
    if (other !== target) other.removeAttribute("open")
  }
  const first = target.querySelector("input:not([type=hidden]), select, button.primary, button.cancel")
  if (first instanceof HTMLElement) first.focus()
}, true)

document.addEventListener("click", ({ target }) => {
  const open = target instanceof Element && target.matches(".cancel") ? target.closest("details") : null
  open?.removeAttribute("open")
  open?.querySelector("summary")?.focus()
})

/** What a link leads to is open: those names need no escapes. */
const openTarget = () => {
  const target = location.hash === "" ? null : document.getElementById(location.hash.slice(1))
  const inside = target?.querySelector("details:not(.confirm)")
  if (inside instanceof HTMLDetailsElement) inside.open = true
}
addEventListener("hashchange", openTarget)
openTarget()
document.documentElement.dataset["script"] = ""
document.querySelector("#pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" })
drawAll()
listen()
