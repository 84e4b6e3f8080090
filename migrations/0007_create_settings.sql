-- What was decided while running: settings as a fold of their stream, and the wrapped keys that seal the secret ones.
-- depends: 0006_index_causation

-- A data key opens what it sealed for ever, so no row may go; only who wraps it changes.
CREATE TABLE secret_keys (
    number     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id     text        NOT NULL CONSTRAINT secret_keys_key_id_key UNIQUE,
    root_id    text        NOT NULL,
    wrapped    text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TRIGGER secret_keys_stay BEFORE DELETE OR TRUNCATE ON secret_keys
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE settings (
    stream     text        PRIMARY KEY,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    state      json        NOT NULL,
    key_id     text
) WITH (fillfactor = 50);
