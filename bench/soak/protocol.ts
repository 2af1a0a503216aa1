/** What the soak and its processes say to each other. */
import { Schema } from "effect"
import type { Latency } from "../histogram.ts"

/** What a process has to do. */
export type Role = "write" | "work"

export interface SoakOptions {
  /** Writes in a second. */
  readonly rate: number
  readonly seconds: number
  /** How many messages are stored before. */
  readonly messages: number
}

/** How many messages a stored stream has before. */
export const streamLength = 100

export type SoakRequest =
  /** Begin; told to the worker first. */
  | { readonly _tag: "Begin"; readonly options: SoakOptions }
  /** To the worker: how far it is. */
  | { readonly _tag: "Tell" }

export const Usage = Schema.Struct({
  /** Seconds of processor time since it began. */
  cpu: Schema.Finite,
  /** In MiB: when it began, the most, and now. */
  memory: Schema.Struct({ begin: Schema.Finite, most: Schema.Finite, end: Schema.Finite })
})

export type SoakReply =
  | { readonly _tag: "Ready" }
  /** Of the writer, when its time is over and its last write has ended. */
  | {
    readonly _tag: "Written"
    readonly seconds: number
    readonly latency: Latency
    readonly failed: number
    /** Writes that had to wait for others, since too many were under way. */
    readonly held: number
    readonly usage: typeof Usage.Type
  }
  /** Of the worker, by subscription. */
  | {
    readonly _tag: "Handled"
    readonly latencies: Readonly<Record<string, Latency>>
    readonly usage: typeof Usage.Type
  }
  | { readonly _tag: "Failed"; readonly reason: string }
