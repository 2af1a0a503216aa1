/**
 * The projection of a store's messages onto an aggregated stream: nothing skipped, nothing linked twice, nothing stalled.
 *
 * **Algorithm**
 *
 * A round links what one snapshot (its *target*) sees and the target of the round before (*seen*) did not, by the
 * transaction ids (column `tx`) of the messages, in the order of global positions. Whoever writes a message holds the
 * lock of its stream until it commits, so what a snapshot sees of a stream is always a beginning of it: every stream
 * keeps its order, whatever commits when. A message that commits late is linked late, and nobody waits for it.
 *
 * A round works in pages of scanned messages; each commits on its own, together with the place it came to. Whoever comes
 * next goes on there. One projector works at a time: depeche_db's lock, the stream's table in EXCLUSIVE mode.
 *
 * Where a round begins to look follows from *marks*. At its start a round reads the last value of the sequence of
 * positions, *then* takes a transaction id of its own; a writer takes its transaction id first, then its positions. So a
 * transaction with a higher id than the mark has only higher positions than the mark. What `seen` did not see are the
 * transactions that were running then, each with the last mark below its id as its lower bound, and those that began
 * later. A transaction that is open for hours costs a look back once, when it has ended.
 *
 * The sequence is read by a function that takes its lock. Read as a table, it shows for a moment a value that `nextval`
 * writes ahead for a crash: a mark that is too high, behind which messages would be missed for ever.
 *
 * Transaction ids belong to a cluster. In a store that was restored into another one, a message can be there whose id has
 * not been given out yet. So before its first round, and when the cluster's identifier has changed, a projection looks for
 * messages that it sees in a snapshot which does not see their transactions: up to the last of them, the *epoch*, messages
 * count as seen by everybody. Then it goes through all messages once.
 */
import type { Objects } from "./objects.ts"

/** The highest position that was given out; 0: none. */
export const lastPosition = (store: Objects): string => `coalesce(pg_sequence_last_value('${store.sequence}'), 0)`
