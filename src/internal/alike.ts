/** Messages of errors that differ in numbers and ids alone. */

/** What stands for `#`: a regular expression of JavaScript and of PostgreSQL, whatever the case of letters. */
export const differing = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+"

const everywhere = new RegExp(differing, "gi")

/** The same for messages that are alike. */
export const alike = (message: string): string => message.replaceAll(everywhere, "#")
