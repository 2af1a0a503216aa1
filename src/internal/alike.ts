/** Messages of errors that differ in numbers and ids alone. */

/**
 * What stands for `#`: UUIDs, words of hexadecimal digits with a decimal one among them, and whole numbers anywhere. A regular expression of
 * JavaScript and of PostgreSQL, which takes the longest alternative, not the first: here they are the same. It names all letters that it
 * means, since what is a letter, and which is the other case of one, is a matter of locales.
 */
export const differing = [
  "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
  "(?<![0-9A-Za-z])[A-Fa-f]*[0-9][0-9A-Fa-f]*(?![0-9A-Za-z])",
  "[0-9]+"
].join("|")

const everywhere = new RegExp(differing, "g")

/** The same for messages that are alike; of what it gives, it changes nothing. */
export const alike = (message: string): string => message.replaceAll(everywhere, "#")
