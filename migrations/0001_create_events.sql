-- The log: every webhook, request and decision, for ever as it was received.
-- depends:

CREATE TABLE events (
    -- xid comes first on purpose: the transaction has its number before the row draws its id,
    -- so an id below one we have seen belongs to a transaction that the snapshot can name (ADR-0004).
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id             bigint      GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    event_id       uuid        NOT NULL,
    stream         text        NOT NULL CHECK (stream ~ '^[a-z][a-z0-9_]*-.' AND octet_length(stream) <= 512),
    version        bigint      NOT NULL CHECK (version >= 0),
    category       text        NOT NULL,
    type           text        NOT NULL CHECK (octet_length(type) BETWEEN 1 AND 256),
    schema_version bigint      NOT NULL DEFAULT 1,
    source         text        NOT NULL,
    subject        text,
    -- json, not jsonb: kept byte for byte; SQL never looks into it, one \u0000 would make every query raise.
    data           json        NOT NULL,
    metadata       json        NOT NULL,
    correlation_id text        NOT NULL,
    causation_id   uuid,
    occurred_at    timestamptz NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT events_event_id_key UNIQUE (event_id),
    CONSTRAINT events_stream_version_key UNIQUE (stream, version),
    CONSTRAINT events_category_check CHECK (category = split_part(stream, '-', 1))
);

CREATE INDEX events_correlation_id_idx ON events (correlation_id);

ALTER TABLE events SET (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of table % is refused: the log is never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER events_are_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ALWAYS: also for a session that calls itself a replica.
ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_immutable;
