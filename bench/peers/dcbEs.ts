/**
 * @dcb-es (https://github.com/kraken-tech/dcb-event-store) by its event store's API, as its README shows it: decisions by
 * `buildDecisionModel`, and from the beginning on a conflict.
 */
import {
  AppendConditionError,
  buildDecisionModel,
  type DcbEvent,
  Query,
  SequencePosition,
  Tags
} from "@dcb-es/event-store"
import { PostgresEventStore } from "@dcb-es/event-store-postgres"
import { Effect, Semaphore } from "effect"
import { storedCustomer } from "../matches.ts"
import { metadata } from "../message.ts"
import { type Database, type Question, rangeOf, type Subject } from "../subjects/Subject.ts"
import { makeFields, makeOwn, type Own, type Tag, type Type } from "../tagged.ts"
import { makePool } from "./pg.ts"

export interface Options {
  /** Whether this process makes one decision at a time, as an application would that meets too many conflicts. */
  readonly inTurns: boolean
}

const type = "OrderPlaced"

type OrderEvent = DcbEvent<typeof type, Tags, ReturnType<typeof makeData>, { readonly traceparent: string }>

const makeData = (own: Own, quantity: number) => ({ ...makeFields(own, quantity), occurredAt: new Date() })

const storedMetadata: OrderEvent["metadata"] = JSON.parse(metadata)

const makeEvent = (own: Own, quantity = 1): OrderEvent => ({
  type,
  tags: Tags.fromObj({ ...own }),
  data: makeData(own, quantity),
  metadata: storedMetadata
})

const queryOf = (asked: ReadonlyArray<Tag>, types: ReadonlyArray<Type>) =>
  Query.fromItems(asked.map((tag) => ({ types: [...types], tags: Tags.fromObj(tag) })))

/** How many messages there are of the types. */
const counting = (tag: Tag, types: ReadonlyArray<Type>) => ({
  tagFilter: Tags.fromObj(tag),
  init: 0,
  when: Object.fromEntries(types.map((one) => [one, (_: unknown, sofar: number) => sofar + 1]))
})

export const make = (database: Database, options: Options) =>
  Effect.gen(function*() {
    const { sql } = database
    const pool = yield* makePool(database)
    const store = new PostgresEventStore({ pool })
    yield* Effect.tryPromise(() => store.ensureInstalled())
    const ends = new Map<string, SequencePosition>()

    const decide = async ({ asked, own, types }: Question): Promise<number> => {
      while (true) {
        const { appendCondition, state } = await buildDecisionModel(
          store,
          Object.fromEntries(asked.map((tag, i) => [String(i), counting(tag, types)]))
        )
        const decidedOn = Object.values(state).reduce((sum, count) => sum + count, 0)
        try {
          await store.append({ events: makeEvent(own, decidedOn + 1), condition: appendCondition })
          return decidedOn
        } catch (error) {
          if (!(error instanceof AppendConditionError)) throw error
        }
      }
    }

    const turn = Semaphore.makeUnsafe(1)

    return {
      write: (_, size) => {
        const events = rangeOf(size, () => makeEvent(makeOwn()))
        return Effect.asVoid(Effect.tryPromise(() => store.append({ events })))
      },
      decide: (question) => {
        const decided = Effect.tryPromise(() => decide(question))
        return options.inTurns ? turn.withPermit(decided) : decided
      },
      appendIf: ({ asked, own, types }) => {
        const events = makeEvent(own)
        const after = ends.get(asked.map((tag) => Tags.fromObj(tag).values.join()).join()) ?? SequencePosition.initial()
        const condition = { failIfEventsMatch: queryOf(asked, types), after }
        return Effect.asVoid(Effect.tryPromise(() => store.append({ events, condition })))
      },
      readTagged: (customer) =>
        Effect.tryPromise(async () => {
          let read = 0
          for await (const { event } of store.read(queryOf([{ customer }], ["OrderPlaced", "OrderShipped"]))) {
            const { data, metadata: { traceparent } } = event as OrderEvent
            if (data.quantity > 0 && traceparent !== "") read++
          }
          return read
        }),
      load: Effect.fnUntraced(function*(streams, length) {
        const { messageId: _, orderId: __, customer: ___, ...rest } = makeData(makeOwn(), 1)
        const total = streams * length
        yield* sql`drop index events_tags_gin`
        yield* sql`
          insert into events (type, tags, payload)
          select ${type}, array['order=stored-' || i, 'customer=' || customer],
            format('{"data":{"messageId":"%s","orderId":"stored-%s","customer":"%s",', gen_random_uuid(), i, customer) ||
              ${JSON.stringify(rest).slice(1)}::text || ',"metadata":' || ${metadata}::text || '}'
          from generate_series(0, ${total - 1}::int) i,
            lateral (select ${sql.literal(storedCustomer("i", total))}) stored(customer)`
        yield* sql`create index events_tags_gin on events using gin(tags) with (fastupdate = off)`.unprepared
        const rows = yield* sql<{ readonly tag: string; readonly end: string }>`
          select tags[2] as tag, max(sequence_position)::text as "end" from events group by 1`
        for (const { end, tag } of rows) ends.set(tag, SequencePosition.fromString(end))
      }),
      clear: sql`truncate events restart identity`,
      table: {
        name: "events",
        decided: {
          customer: "payload::json #>> '{data,customer}'",
          number: "(payload::json #>> '{data,quantity}')::int"
        }
      }
    } satisfies Subject
  })
