/** Snapshots in memory. */
import type { EncodedSnapshot, SavedSnapshot, SnapshotKey } from "../Storage.ts"

export class Snapshots {
  /** Of each fold and source, those of the last two fingerprints, the one that was saved last behind. */
  private readonly saved = new Map<string, ReadonlyArray<SavedSnapshot>>()

  get(key: SnapshotKey): EncodedSnapshot | undefined {
    const found = this.of(key).find(({ fingerprint }) => fingerprint === key.fingerprint)
    return found && { state: found.state, version: found.version, ends: found.ends }
  }

  save(snapshot: SavedSnapshot): void {
    const saved = this.of(snapshot)
    const before = saved.find(({ fingerprint }) => fingerprint === snapshot.fingerprint)
    if (before !== undefined && isBehind(before.ends, snapshot.ends)) return
    this.saved.set(nameOf(snapshot), [...saved.filter((one) => one !== before).slice(-1), snapshot])
  }

  clear(): void {
    this.saved.clear()
  }

  private of(key: SnapshotKey): ReadonlyArray<SavedSnapshot> {
    return this.saved.get(nameOf(key)) ?? []
  }
}

const nameOf = ({ fold, source }: SnapshotKey): string => JSON.stringify([fold, source])

/** Whether positions are higher than others, as PostgreSQL compares arrays. */
const isBehind = (ends: ReadonlyArray<number>, others: ReadonlyArray<number>): boolean => {
  const differs = ends.findIndex((end, i) => end !== others[i])
  return differs >= 0 && (ends[differs] ?? 0) > (others[differs] ?? 0)
}
