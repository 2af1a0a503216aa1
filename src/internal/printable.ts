/**
 * Text on one line, as it may stand in a message or a line of the log: control characters, separators of lines and marks
 * of writing direction are escaped. Names of streams may hold any of them.
 */
export const printable = (text: string): string =>
  /^[\x20-\x7e]*$/.test(text) // as most names are
    ? text
    : text.replace(
      /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
    )

/** The beginning of it: a type, or an id, may be as large as a message. */
export const brief = (text: string): string => printable(text.length > 200 ? `${text.slice(0, 200)}…` : text)
