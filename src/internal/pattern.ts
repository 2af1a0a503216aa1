/**
 * LIKE, as PostgreSQL matches it: `%` any run of characters, `_` any one (a code point), `\` the next one literally.
 *
 * Matching never backtracks: each run of characters between two `%` takes the first place where it fits, which leaves
 * the most to the runs behind it. So each run is compared with each place of a name at most once.
 */
export const compilePattern = (pattern: string): (name: string) => boolean => {
  const [first = [], ...rest] = parse(pattern)
  const last = rest.pop()
  return (name) => {
    const characters = Array.from(name)
    if (!fits(first, characters, 0)) return false
    if (last === undefined) return characters.length === first.length
    let at = first.length
    for (const run of rest) {
      while (at + run.length <= characters.length && !fits(run, characters, at)) at++
      at += run.length
    }
    const end = characters.length - last.length
    return at <= end && fits(last, characters, end)
  }
}

/** Characters that follow each other; undefined: any character. */
type Run = ReadonlyArray<string | undefined>

/** The runs between the `%` of a pattern: one more than there are `%`. */
const parse = (pattern: string): ReadonlyArray<Run> => {
  let run: Array<string | undefined> = []
  const runs = [run]
  let escaped = false
  for (const character of pattern) {
    if (!escaped && character === "%") runs.push(run = [])
    else if (escaped || character !== "\\") run.push(!escaped && character === "_" ? undefined : character)
    escaped = !escaped && character === "\\"
  }
  return runs
}

const fits = (run: Run, characters: ReadonlyArray<string>, at: number): boolean =>
  at + run.length <= characters.length &&
  run.every((character, i) => character === undefined || character === characters[at + i])
