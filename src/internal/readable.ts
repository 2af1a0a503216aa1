/** Figures as people read them. */
import { DateTime, Duration } from "effect"

/** `3 min`, or `2 d`. */
export const duration = (value: Duration.Duration | undefined): string => {
  if (value === undefined) return ""
  const seconds = Duration.toSeconds(value)
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 120) return `${Math.round(seconds)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`
}

/** How long ago that was. */
export const ago = (time: DateTime.Utc | undefined, now: DateTime.Utc): string =>
  time === undefined
    ? "never"
    : `${duration(Duration.millis(Math.max(0, now.epochMilliseconds - time.epochMilliseconds)))} ago`

/** In ISO 8601. */
export const time = (at: DateTime.Utc | undefined): string => at === undefined ? "" : DateTime.formatIso(at)

/** `20,000`. */
export const count = (value: number): string => value.toLocaleString("en-US")

const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"] as const

/** `1.5 MiB`. */
export const bytes = (value: number): string => {
  const unit = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), units.length - 1)
  return `${(value / 2 ** (10 * unit)).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`
}
