/**
 * The turns of decisions in this process: those that have a source in common are made one after the other.
 *
 * Everybody has a ticket, and stands in line at all places that the decision is about at once: so nobody waits in a circle,
 * whatever the order of the places. The lower ticket comes first, also of those that come back to decide again.
 */
import { Context, Effect } from "effect"
import type { SchedulerDispatcher } from "effect/Scheduler"
import type { Evolving } from "./evolving.ts"

/** A stream or a tag that somebody decides on: what is known of it is there as long as somebody does. */
export class Place<A, Line> {
  readonly key: string
  /** In the order of their tickets. */
  readonly waiting: Array<Turn<A, Line>> = []
  holder: Turn<A, Line> | undefined
  /** How many decisions are about it. */
  wanted = 0
  readonly sources = new Set<Evolving<A>>()
  /** Where decisions about it gather until they are written. */
  line: Line | undefined

  constructor(key: string) {
    this.key = key
  }
}

/** A decision that waits for its turn, has it, or has had it. */
export interface Turn<A, Line> {
  readonly ticket: number
  readonly places: ReadonlyArray<Place<A, Line>>
  state: "waiting" | "deciding" | "passed"
  /** The fiber that waits for it. */
  fiber: { readonly resume: () => void; readonly dispatcher: SchedulerDispatcher } | undefined
}

/**
 * The decisions within which a fiber decides, of whatever store. It waits for no other turn as long as it has one of them: of two
 * that decide on each other's sources neither would end.
 */
export const Within = Context.Reference<
  ReadonlyArray<{ readonly places: ReadonlyArray<object>; readonly state: Turn<never, never>["state"] }>
>("effect-message-store/store/Within", { defaultValue: () => [] })

/** How many fibers go on, one after the other, before others come to theirs. */
const atATime = 64

export class Turns<A, Line> {
  private readonly places = new Map<string, Place<A, Line>>()
  private tickets = 0
  /** Those whose fibers are about to go on. Each may let the next one go on before it returns, so they do not do it themselves. */
  private readonly awake: Array<NonNullable<Turn<A, Line>["fiber"]>> = []
  private isWaking = false

  place(key: string): Place<A, Line> | undefined {
    return this.places.get(key)
  }

  /** Stands in line, behind everybody who is there. */
  enter(keys: ReadonlyArray<string>): Turn<A, Line> {
    const places = keys.map((key) => {
      let place = this.places.get(key)
      if (place === undefined) this.places.set(key, place = new Place(key))
      place.wanted++
      return place
    })
    const turn: Turn<A, Line> = { ticket: ++this.tickets, places, state: "passed", fiber: undefined }
    this.wait(turn)
    return turn
  }

  /** Stands in line again, behind those of lower tickets. */
  wait(turn: Turn<A, Line>): void {
    const isDeciding = turn.state === "deciding"
    turn.state = "waiting"
    for (const place of turn.places) {
      const behind = place.waiting.findLastIndex(({ ticket }) => ticket < turn.ticket)
      place.waiting.splice(behind + 1, 0, turn)
      if (isDeciding) place.holder = undefined
    }
    if (isDeciding) { for (const place of turn.places) this.next(place) }
    this.begin(turn)
  }

  /** Lets the next one decide. */
  pass(turn: Turn<A, Line>): void {
    if (turn.state !== "deciding") return
    turn.state = "passed"
    for (const place of turn.places) place.holder = undefined
    for (const place of turn.places) this.next(place)
  }

  /** The decision has come to its end: what nobody decides on any more is forgotten. */
  leave(turn: Turn<A, Line>): void {
    this.pass(turn)
    if (turn.state === "waiting") {
      for (const { waiting } of turn.places) waiting.splice(waiting.indexOf(turn), 1)
      turn.state = "passed"
      for (const place of turn.places) this.next(place)
    }
    for (const place of turn.places) {
      if (--place.wanted > 0) continue
      this.places.delete(place.key)
      for (const source of place.sources) this.forget(source)
    }
  }

  /** Nobody waits for a turn any more: whoever does goes on without it. */
  end(): void {
    const waiting = new Set(Array.from(this.places.values()).flatMap((place) => place.waiting))
    for (const turn of waiting) {
      const { fiber } = turn
      turn.fiber = undefined
      fiber?.resume()
    }
  }

  /** What a source comes to is not known any more. */
  forget(source: Evolving<A>): void {
    source.revision++
    for (const key of source.named.keys) this.places.get(key)?.sources.delete(source)
  }

  private next({ waiting: [first] }: Place<A, Line>): void {
    if (first !== undefined) this.begin(first)
  }

  private begin(turn: Turn<A, Line>): void {
    if (turn.state !== "waiting" || !turn.places.every((place) => isFirst(turn, place))) return
    turn.state = "deciding"
    for (const place of turn.places) {
      place.waiting.shift()
      place.holder = turn
    }
    const { fiber } = turn
    if (fiber === undefined) return
    turn.fiber = undefined
    this.awake.push(fiber)
    if (this.isWaking) return
    this.isWaking = true
    fiber.dispatcher.scheduleTask(this.wake, 0)
  }

  private readonly wake = (): void => {
    for (let i = 0; i < atATime; i++) this.awake.shift()?.resume()
    const [next] = this.awake
    this.isWaking = next !== undefined
    next?.dispatcher.scheduleTask(this.wake, 0)
  }

  /** Waits for the turn to decide. */
  hasTurn(turn: Turn<A, Line>): Effect.Effect<void> {
    return Effect.withFiber(({ currentDispatcher: dispatcher }) =>
      turn.state === "deciding" ? Effect.void : Effect.callback<void>((resume) => {
        turn.fiber = { dispatcher, resume: () => resume(Effect.void) }
      })
    )
  }
}

/** Whether nobody else comes first. */
export const isFirst = <A, Line>(turn: Turn<A, Line>, { holder, waiting: [first] }: Place<A, Line>): boolean =>
  holder === undefined && first === turn
