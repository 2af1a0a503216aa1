/** Snapshots in memory. */
import type { EditionKey, EncodedSnapshot, SavedSnapshot, SnapshotKey } from "../Storage.ts"

/** The edition that a stream or a tag is in. */
interface EditionOf {
  (key: EditionKey): number
}

export class Snapshots {
  /** Of each fold and source, those of the last two fingerprints, the one that was saved last behind. */
  private readonly saved = new Map<string, ReadonlyArray<SavedSnapshot>>()

  /** Unless it was made in other editions. */
  get(key: SnapshotKey, editionOf: EditionOf): EncodedSnapshot | undefined {
    const found = this.of(key).find(({ fingerprint }) => fingerprint === key.fingerprint)
    return found && isCurrent(found, editionOf)
      ? { state: found.state, version: found.version, ends: found.ends }
      : undefined
  }

  save(snapshot: SavedSnapshot, editionOf: EditionOf): void {
    if (!isCurrent(snapshot, editionOf)) return
    const saved = this.of(snapshot)
    const before = saved.find(({ fingerprint }) => fingerprint === snapshot.fingerprint)
    if (before !== undefined && isBehind(before.ends, snapshot.ends)) return
    this.saved.set(nameOf(snapshot), [...saved.filter((one) => one !== before).slice(-1), snapshot])
  }

  /** Removes those that were made in other editions. */
  forget(editionOf: EditionOf): void {
    for (const [name, saved] of this.saved) {
      const current = saved.filter((one) => isCurrent(one, editionOf))
      if (current.length > 0) this.saved.set(name, current)
      else this.saved.delete(name)
    }
  }

  clear(): void {
    this.saved.clear()
  }

  private of(key: SnapshotKey): ReadonlyArray<SavedSnapshot> {
    return this.saved.get(nameOf(key)) ?? []
  }
}

const isCurrent = ({ madeOf }: SavedSnapshot, editionOf: EditionOf): boolean =>
  madeOf.every((made) => editionOf(made) === made.edition)

const nameOf = ({ fold, source }: SnapshotKey): string => JSON.stringify([fold, source])

/** Whether positions are higher than others, as PostgreSQL compares arrays. */
const isBehind = (ends: ReadonlyArray<number>, others: ReadonlyArray<number>): boolean => {
  const differs = ends.findIndex((end, i) => end !== others[i])
  return differs >= 0 && (ends[differs] ?? 0) > (others[differs] ?? 0)
}
