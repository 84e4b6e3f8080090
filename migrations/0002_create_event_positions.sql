-- The skeleton: the one order that all readers agree on, and the chain that shows tampering. It outlives the events.
-- depends: 0001_create_events

CREATE TABLE event_positions (
    position    bigint      PRIMARY KEY CHECK (position >= 1),
    id          bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    category    text        NOT NULL,
    stream      text        NOT NULL,
    version     bigint      NOT NULL,
    event_hash  bytea       NOT NULL CHECK (octet_length(event_hash) = 32),
    chain_hash  bytea       NOT NULL CHECK (octet_length(chain_hash) = 32),
    numbered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT event_positions_id_key UNIQUE (id),
    CONSTRAINT event_positions_event_id_key UNIQUE (event_id),
    CONSTRAINT event_positions_stream_version_key UNIQUE (stream, version)
);

CREATE INDEX event_positions_category_position_idx ON event_positions (category, position);

ALTER TABLE event_positions SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE TRIGGER event_positions_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON event_positions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE event_positions ENABLE ALWAYS TRIGGER event_positions_are_immutable;

-- The table of the release notes, for those who look for it.
CREATE VIEW webhook_events AS
SELECT e.event_id, e.source, e.type AS event_type, e.data AS payload, e.correlation_id, e.stream, e.version,
       p.position, p.position IS NOT NULL AS published, e.recorded_at AS created_at
  FROM events AS e
  LEFT JOIN event_positions AS p ON p.id = e.id
 WHERE e.category IN ('lidarr', 'slskd');
