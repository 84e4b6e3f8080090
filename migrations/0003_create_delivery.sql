-- Who leads, how far each consumer group has come, and what it could not handle.
-- depends: 0002_create_event_positions

CREATE TABLE leases (
    name       text        PRIMARY KEY,
    epoch      bigint      NOT NULL,
    holder     text        NOT NULL,
    expires_at timestamptz NOT NULL,
    -- The publisher's: no unnumbered id is left at or below it (ADR-0004).
    floor      bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE group_checkpoints (
    group_name        text   PRIMARY KEY,
    category          text   NOT NULL,
    verified_position bigint NOT NULL DEFAULT 0,
    -- The chain at verified_position: a log that was restored to another past is noticed.
    chain_hash        bytea  NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
    stopped_at        timestamptz
) WITH (fillfactor = 50);

-- The progress of a group that reads one category and appends elsewhere.
CREATE TABLE reactions (
    group_name text   NOT NULL,
    stream     text   NOT NULL,
    version    bigint NOT NULL,
    PRIMARY KEY (group_name, stream)
) WITH (fillfactor = 80);

CREATE TABLE dead_letters (
    group_name      text        NOT NULL,
    stream          text        NOT NULL,
    version         bigint      NOT NULL,
    status          text        NOT NULL CHECK (status IN ('retrying', 'parked', 'discarded')),
    attempts        integer     NOT NULL,
    error_type      text        NOT NULL,
    error           text        NOT NULL,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    parked_at       timestamptz,
    PRIMARY KEY (group_name, stream, version)
);

-- One stream of a group waits at one version at a time; discarded versions lie behind it.
CREATE UNIQUE INDEX dead_letters_waiting_idx ON dead_letters (group_name, stream) WHERE status <> 'discarded';
CREATE INDEX dead_letters_parked_at_idx ON dead_letters (group_name, parked_at) WHERE status = 'parked';
