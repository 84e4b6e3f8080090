-- Who may do what: keys are shown once and kept as a hash.
-- depends: 0003_create_delivery

CREATE TABLE api_keys (
    key_id       uuid        PRIMARY KEY,
    name         text        NOT NULL,
    role         text        NOT NULL CHECK (role IN ('admin', 'user', 'webhook', 'metrics')),
    user_id      text        NOT NULL,
    key_hash     bytea       NOT NULL CONSTRAINT api_keys_key_hash_key UNIQUE CHECK (octet_length(key_hash) = 32),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz,
    revoked_at   timestamptz
);
