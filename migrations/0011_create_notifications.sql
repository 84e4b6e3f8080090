-- What people are told about their jobs: once per job, attempt and kind, whoever handles it and however often.
-- depends: 0010_create_search_sessions

CREATE TABLE notifications (
    stream          text        PRIMARY KEY,
    version         bigint      NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    state           json        NOT NULL,
    notification_id uuid        NOT NULL,
    job_id          uuid        NOT NULL,
    attempt         bigint      NOT NULL,
    kind            text        NOT NULL,
    user_id         text        NOT NULL,
    status          text        NOT NULL
) WITH (fillfactor = 80);

CREATE UNIQUE INDEX notifications_once_idx ON notifications (job_id, attempt, kind) WHERE version >= 0;
