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
