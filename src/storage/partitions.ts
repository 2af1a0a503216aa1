/** Places in the partitions of an aggregated stream. */

/** The last position of a partition. */
export interface PartitionHead {
  readonly partition: number
  readonly position: number
}
