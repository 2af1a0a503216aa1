/** A message store as depeche_db 0.13 leaves it in a database: its objects, and rows that Python wrote. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

export interface DepecheMessage {
  readonly message_id: string
  readonly stream: string
  readonly version: number
  readonly message: Readonly<Record<string, unknown>>
}

export const createDepecheStore = Effect.fnUntraced(
  function*(name: string, rows: ReadonlyArray<DepecheMessage> = []) {
    const sql = yield* SqlClient.SqlClient
    const statements = [
      `create sequence depeche_msgs_${name}_global_seq`,
      `create table depeche_msgs_${name} (
        message_id uuid not null primary key,
        global_position integer not null unique,
        added_at timestamp without time zone not null default now(),
        stream varchar(255) not null,
        version integer not null,
        message jsonb not null,
        constraint depeche_msgs_${name}_version_uq unique (stream, version)
      )`,
      `create function depeche_write_message_${name}(
        message_id uuid, stream varchar, message json, expected_version bigint default null,
        out version bigint, out global_position bigint
      ) language plpgsql as $$
      declare
        _stream_version bigint;
      begin
        perform pg_advisory_xact_lock(left('x' || md5(depeche_write_message_${name}.stream), 17)::bit(64)::bigint);
        select max(m.version) into _stream_version from depeche_msgs_${name} m
        where m.stream = depeche_write_message_${name}.stream;
        _stream_version := coalesce(_stream_version, 0);
        if expected_version is not null and expected_version != _stream_version then
          raise exception 'Wrong expected version: % (Stream: %, Stream Version: %)',
            expected_version, stream, _stream_version;
        end if;
        version := _stream_version + 1;
        global_position := nextval('depeche_msgs_${name}_global_seq');
        insert into depeche_msgs_${name} (message_id, stream, version, message, global_position)
        values (message_id, stream, version, message, global_position);
      end $$`,
      `create function depeche_storage_new_msg_${name}() returns trigger language plpgsql as $$
      begin
        perform pg_notify('depeche_${name}_messages', json_build_object(
          'message_id', new.message_id, 'stream', new.stream,
          'version', new.version, 'global_position', new.global_position)::text);
        return new;
      end $$`,
      `create trigger depeche_storage_new_msg_${name} after insert on depeche_msgs_${name}
        for each row execute procedure depeche_storage_new_msg_${name}()`
    ]
    for (const statement of statements) yield* sql.unsafe(statement).unprepared
    for (const { message, message_id, stream, version } of rows) {
      yield* sql`insert into ${sql(`depeche_msgs_${name}`)}
        (message_id, global_position, added_at, stream, version, message)
        values (${message_id}, nextval(${`depeche_msgs_${name}_global_seq`}), '2024-05-06 07:08:09.123', ${stream},
          ${version}, ${JSON.stringify(message)}::text::jsonb)`
    }
  }
)
