/**
 * LIKE, as PostgreSQL matches it: `%` any run of characters, `_` any one (a code point), `\` the next one literally.
 */
export const compilePattern = (pattern: string): (name: string) => boolean => {
  let source = ""
  const characters = Array.from(pattern)
  for (let i = 0; i < characters.length; i++) {
    const character = characters[i]
    if (character === "%") source += ".*"
    else if (character === "_") source += "."
    else source += literal(character === "\\" ? characters[++i] ?? "" : character ?? "")
  }
  const expression = new RegExp(`^${source}$`, "su")
  return (name) => expression.test(name)
}

const literal = (character: string): string => character.replace(/[\^$\\.*+?()[\]{}|/]/, "\\$&")
