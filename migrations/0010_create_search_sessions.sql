-- What people looked for in Soulseek and what was found, for an hour.
-- depends: 0009_create_soulseek

CREATE TABLE search_sessions (
    stream     text        PRIMARY KEY,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    state      json        NOT NULL,
    session_id uuid        NOT NULL,
    user_id    text        NOT NULL,
    status     text        NOT NULL,
    expires_at timestamptz
) WITH (fillfactor = 70);

-- Who looks for what is over finds it without reading what is not.
CREATE INDEX search_sessions_expires_at_idx ON search_sessions (expires_at)
 WHERE status IN ('running', 'completed', 'failed');
