/** Places in the partitions of an aggregated stream. */

/** The last position of a partition. */
export interface PartitionHead {
  readonly partition: number
  readonly position: number
}

/**
 * How many messages partitions have: positions begin with 0, and have no gaps.
 *
 * @internal
 */
export const messagesIn = (heads: ReadonlyArray<PartitionHead>): number =>
  heads.reduce((sum, { position }) => sum + position + 1, 0)
