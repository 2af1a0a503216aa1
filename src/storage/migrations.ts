/** What a backend's database objects are made by, for those who run it themselves. */

/** One of a numbered list. */
export interface Migration {
  readonly id: number
  readonly name: string
  /** In this order, in one transaction. None ends with a semicolon. */
  readonly statements: ReadonlyArray<string>
}
