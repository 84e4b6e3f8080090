-- How far we have looked at systems that do not tell us everything: a hint, what is seen twice is one event.
-- depends: 0011_create_notifications

CREATE TABLE polls (
    name      text        PRIMARY KEY,
    -- Their clock: all that happened before was seen.
    cursor_at timestamptz NOT NULL,
    polled_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
