/** The tags that statements under way have, so that no other one is sent for them in vain. */
import type { TagLocks } from "../locks.ts"

export class TagsAway {
  /** How many items that are away write a tag, or ask about it. */
  private readonly writing = new Map<string, number>()
  private readonly asking = new Map<string, number>()

  /** Whether nothing under way keeps somebody from these locks. */
  areFree(locks: TagLocks): boolean {
    if (this.writing.size === 0 && this.asking.size === 0) return true
    for (const [tag, alone] of locks) if (this.writing.has(tag) || (alone && this.asking.has(tag))) return false
    return true
  }

  leave(locks: TagLocks): void {
    this.add(locks, 1)
  }

  comeBack(locks: TagLocks): void {
    this.add(locks, -1)
  }

  private add(locks: TagLocks, one: 1 | -1): void {
    for (const [tag, alone] of locks) {
      const counts = alone ? this.writing : this.asking
      const count = (counts.get(tag) ?? 0) + one
      if (count === 0) counts.delete(tag)
      else counts.set(tag, count)
    }
  }
}
