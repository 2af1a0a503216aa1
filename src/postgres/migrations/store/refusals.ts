/** What the functions that append any items (migrations 5 and 6) raise when messages do not go in. */
import type { Objects } from "../../objects.ts"

/** Nothing is written where rows are left out by a trigger. */
export const keptOut = (objects: Objects): string =>
  `raise exception 'effect-message-store: a trigger keeps messages out of <schema>.${objects.table}'
            using errcode = 'triggered_action_exception', hint = 'Triggers must let in every message as it is.'`

/** Again and again a unique index refuses messages, though none is found that they collide with. */
export const takesNone = (objects: Objects): string =>
  `raise exception 'effect-message-store: <schema>.${objects.table} takes no message: ${objects.sequence} gives positions that it has, or a trigger or a policy keeps messages out, or hides them'
        using hint = 'Set the sequence to the highest global_position of the table. Triggers must let in every message as it is, and who writes must see all of them.'`
