/** Times as PostgreSQL reads and writes them. */
import { DateTime, Result } from "effect"
import { checkTime } from "./checks.ts"

/** In it, years before the first, and behind 9999, are written in another way than in ISO 8601. */
export const timeText = (time: DateTime.Utc): string => {
  const [, year = "", rest = ""] = /^([-+]?\d+)(.*)$/.exec(DateTime.formatIso(time)) ?? []
  return Number(year) > 0
    ? `${Number(year)}`.padStart(4, "0") + rest
    : `${1 - Number(year)}`.padStart(4, "0") + `${rest} BC`
}

/** Whether it is a time that {@link parseTimeText} reads, and no other one: not 30 February, or in the year 0. */
export const isTimeText = (text: string): boolean => {
  // Nearly all are of years that ISO 8601 writes as PostgreSQL does: this is more than twice as fast.
  if (text.charAt(4) === "-" && text.endsWith("Z") && !text.startsWith("0000")) {
    const time = Date.parse(text)
    return Number.isFinite(time) && DateTime.formatIso(DateTime.makeUnsafe(time)).startsWith(text.slice(0, 19))
  }
  try {
    const [, seconds = "", era = ""] = /^(.*?:\d\d:\d\d).*?( BC)?$/.exec(text) ?? []
    const time = parseTimeText(text)
    const again = timeText(time)
    return again.startsWith(seconds) && again.endsWith(" BC") === (era !== "") && Result.isSuccess(checkTime(time))
  } catch {
    return false
  }
}

/** What {@link timeText} has written; of microseconds, milliseconds are left. */
export const parseTimeText = (text: string): DateTime.Utc => {
  const [, year = "", rest = "", era = ""] = /^(\d+)(.*?)( BC)?$/.exec(text) ?? []
  const number = era === "" ? Number(year) : 1 - Number(year)
  const sign = number < 0 ? "-" : "+" // of six digits, ISO 8601 asks for one
  return DateTime.makeUnsafe(`${sign}${`${Math.abs(number)}`.padStart(6, "0")}${rest}`)
}
