/** Stored tags, and how many messages have them. */

/** So many messages have the tag: 10, 1,000, or a tenth of all. */
export type Matches = "10" | "1000" | "tenth"

/** How many stored messages have such a tag, of so many. */
export const matchesOf = (matches: Matches, stored: number): number =>
  matches === "tenth" ? stored / 10 : Number(matches)

/** The customer of one of the stored tags that so many messages have. */
export const anyCustomer = (matches: Matches, stored: number): string => {
  const any = (count: number) => Math.floor(Math.random() * count)
  switch (matches) {
    case "tenth":
      return `many-${5 * any(2)}`
    case "1000":
      return `some-${1 + any(4)}-${any(stored / 10_000)}`
    case "10":
      return `few-${6 + any(4)}-${any(stored / 100)}`
  }
}

/**
 * In SQL the customer of message number `i`, from 0, of so many, a multiple of 10,000: two tenths of them have a tag each,
 * four tenths one that 1,000 have, four tenths one that 10 have. All are spread over the whole store.
 */
export const storedCustomer = (i: string, stored: number): string =>
  `case when ${i} % 5 = 0 then 'many-' || ${i} % 10
    when ${i} % 10 < 5 then 'some-' || ${i} % 10 || '-' || ${i} / 10 % ${stored / 10_000}
    else 'few-' || ${i} % 10 || '-' || ${i} / 10 % ${stored / 100} end`
