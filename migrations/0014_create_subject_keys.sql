-- Who can be erased: a key per person, which seals what they said, and the users as a fold of their streams.
-- depends: 0013_add_deadlines

CREATE TABLE subject_keys (
    subject    text        PRIMARY KEY,
    key_id     text        NOT NULL CONSTRAINT subject_keys_key_id_key UNIQUE,
    wrapped    text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at  timestamptz,
    erased_by  text,
    CONSTRAINT subject_keys_key_or_tombstone CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
) WITH (fillfactor = 80);

-- A key that is gone stays gone, and who it belonged to stays known as erased.
CREATE FUNCTION refuse_resurrection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.erased_at IS NULL AND NEW.subject = OLD.subject AND NEW.key_id = OLD.key_id THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% of table subject_keys is refused: who is erased stays so', TG_OP
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER subject_keys_stay BEFORE UPDATE OR DELETE ON subject_keys
    FOR EACH ROW EXECUTE FUNCTION refuse_resurrection();
CREATE TRIGGER subject_keys_are_not_truncated BEFORE TRUNCATE ON subject_keys
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE users (
    stream     text        PRIMARY KEY,
    version    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    state      json        NOT NULL,
    user_id    text        NOT NULL,
    is_erased  boolean     NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX api_keys_user_id_idx ON api_keys (user_id);
