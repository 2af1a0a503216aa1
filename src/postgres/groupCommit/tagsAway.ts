/** The tags that statements under way have, so that no other one is sent for them in vain. */
import type { TagLocks } from "../locks.ts"

export class TagsAway {
  /** Of each tag, how many items that are away write it, and how many ask about it. */
  private readonly counts = new Map<string, { writing: number; asking: number }>()

  /** Whether nothing under way keeps somebody from these locks. */
  areFree(locks: TagLocks): boolean {
    if (this.counts.size === 0) return true
    for (const [tag, alone] of locks) {
      const count = this.counts.get(tag)
      if (count !== undefined && (alone || count.writing > 0)) return false
    }
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
      const count = this.counts.get(tag) ?? { writing: 0, asking: 0 }
      count[alone ? "writing" : "asking"] += one
      if (count.writing + count.asking === 0) this.counts.delete(tag)
      else this.counts.set(tag, count)
    }
  }
}
