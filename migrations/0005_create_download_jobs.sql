-- Download jobs as they stand: a fold of their streams, and the keys by which facts from outside find them.
-- depends: 0004_create_api_keys

CREATE TABLE correlation_keys (
    key     text   PRIMARY KEY,
    streams text[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 80);

CREATE TABLE download_jobs (
    stream             text        PRIMARY KEY,
    version            bigint      NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    state              json        NOT NULL,
    job_id             uuid        NOT NULL,
    user_id            text        NOT NULL,
    target_mbid        uuid        NOT NULL,
    target_is_derived  boolean     NOT NULL,
    discovery_batch_id uuid,
    status             text        NOT NULL,
    artist             text        NOT NULL,
    album              text        NOT NULL,
    source             text,
    attempt            bigint      NOT NULL,
    reason             text
) WITH (fillfactor = 80);

-- The constraint of the release notes, over the states that are really active; without NULLS NOT DISTINCT it protects nothing.
CREATE UNIQUE INDEX download_jobs_one_active_idx
    ON download_jobs (user_id, target_mbid, discovery_batch_id) NULLS NOT DISTINCT
 WHERE status IN ('requested', 'searching', 'downloading', 'importing');

CREATE INDEX download_jobs_user_updated_idx ON download_jobs (user_id, updated_at DESC, stream);
CREATE INDEX download_jobs_status_updated_idx ON download_jobs (status, updated_at DESC, stream);
