/**
 * What the server alone can do, as pgbench would find it: loops in the database, without a client, a wire, or a round trip. Writes are
 * bare inserts of versions that are known, a transaction each; of reads the pages are found, and turned to text, and not sent.
 */
import { Effect } from "effect"
import { timed } from "../measure.ts"
import { encode, makeMessage, metadata } from "../message.ts"
import { migrate, sequenceName, stored, tableName } from "./depecheTable.ts"
import { type Database, pageSize, rangeOf, type Subject } from "./Subject.ts"

export const make = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    const { sql } = database
    const [version] = yield* sql<{ readonly number: string }>`show server_version_num`.values.pipe(
      Effect.map((rows) => rows.map(([number]) => ({ number: String(number) })))
    )
    // Ids that rise, where the server makes them.
    const id = Number(version?.number) >= 180_000 ? "uuidv7()" : "gen_random_uuid()"
    yield* sql.unsafe(writeProcedure(id, JSON.stringify(encode(makeMessage()))))
    yield* sql.unsafe(readFunction)
    let rounds = 0

    return {
      alone: (work, milliseconds, load) => {
        const round = ++rounds
        const { fibers } = work
        const one = (fiber: number) =>
          work.kind === "write"
            ? Effect.map(
              sql<{ readonly stored: number }>`call bench_write(${milliseconds}::float8, ${work.size}::int, ${
                work.streams === "one" ? `hot${round}-1` : `own${round}x${fiber}-1`
              }::text, 0::float8)`,
              ([row]) => row?.stored ?? 0
            )
            : Effect.map(
              sql<{ readonly rows: number }>`
                select bench_read(${milliseconds}::float8, ${load?.streams ?? 1}::int, ${
                load?.length ?? 1
              }::int) as rows`,
              ([row]) => row?.rows ?? 0
            )
        return timed(
          Effect.map(
            Effect.all(rangeOf(fibers, one), { concurrency: "unbounded" }),
            (counts) => counts.reduce((sum, count) => sum + count, 0)
          )
        )
      },
      ...stored(database)
    } satisfies Subject
  })

const writeProcedure = (id: string, data: string) =>
  `create procedure bench_write(_milliseconds float8, _size int, _stream text, inout stored float8)
  language plpgsql as $procedure$
  declare
    _until constant timestamptz := clock_timestamp() + _milliseconds * interval '1 millisecond';
    _data constant text := '${data.replaceAll("'", "''")}';
    _metadata constant text := '${metadata}';
    _head int := 0;
  begin
    while clock_timestamp() < _until loop
      insert into ${tableName} (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
      select ${id}, nextval('${sequenceName}'), _stream, _head + i, _data::json, _metadata::jsonb, now(), pg_current_xact_id()
      from generate_series(1, _size) i;
      commit;
      _head := _head + _size;
    end loop;
    stored := _head;
  end
  $procedure$`

const readFunction = `create function bench_read(_milliseconds float8, _streams int, _length int) returns float8
  language plpgsql as $function$
  declare
    _until constant timestamptz := clock_timestamp() + _milliseconds * interval '1 millisecond';
    _stream text;
    _from int;
    _found int;
    _rows float8 := 0;
    _bytes bigint;
  begin
    while clock_timestamp() < _until loop
      _stream := 'stored' || 1 + floor(random() * _streams)::int || '-1';
      _from := 1;
      loop
        select count(*), sum(octet_length(p.message) + octet_length(p.metadata)) into _found, _bytes from (
          select message_id, stream, version, global_position, added_at, message::text, metadata::text from ${tableName}
          where stream = _stream and version >= _from order by version limit ${pageSize}
        ) p;
        _rows := _rows + _found;
        _from := _from + _found;
        exit when _found < ${pageSize} or _from > _length;
      end loop;
    end loop;
    return _rows;
  end
  $function$`
