-- The to-do list of calls to the outside, who makes which, and which systems are not to be called now.
-- depends: 0007_create_settings

-- What the states of the read models have open, by stream: written with them, in their transaction.
CREATE TABLE effects (
    effect_id   uuid        PRIMARY KEY,
    stream      text        NOT NULL,
    category    text        NOT NULL,
    kind        text        NOT NULL,
    system      text        NOT NULL,
    target      text,
    intended_at timestamptz NOT NULL
);

CREATE INDEX effects_stream_idx ON effects (stream);
CREATE INDEX effects_kind_idx ON effects (kind, intended_at);
CREATE INDEX effects_intended_at_idx ON effects (intended_at, effect_id);

-- No part of any state, and no foreign key: that a call was begun must be known even where effects was lost and rebuilt.
CREATE TABLE effect_leases (
    effect_id       uuid        PRIMARY KEY,
    fence           bigint      NOT NULL,
    holder          text        NOT NULL,
    expires_at      timestamptz NOT NULL,
    -- Since when the other side may have had the call; NULL while it surely has not.
    began_at        timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    failures        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    last_error      text,
    is_outage       boolean     NOT NULL DEFAULT false,
    progress        json
) WITH (fillfactor = 50);

CREATE TABLE effect_breakers (
    system     text        PRIMARY KEY,
    failures   integer     NOT NULL DEFAULT 0,
    opened_at  timestamptz,
    probe_at   timestamptz,
    probes     integer     NOT NULL DEFAULT 0,
    last_error text
) WITH (fillfactor = 50);
