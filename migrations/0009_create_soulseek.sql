-- What all processes must agree on about the one Soulseek account: who wants it connected, what was searched, who fails us.
-- depends: 0008_create_effects

-- One row. Anybody asks by raising ``asked``; the owner of the lease answers, under its epoch.
CREATE TABLE soulseek_account (
    is_the_one    boolean     PRIMARY KEY DEFAULT true CHECK (is_the_one),
    is_wanted     boolean     NOT NULL DEFAULT true,
    asked         bigint      NOT NULL DEFAULT 0,
    answered      bigint      NOT NULL DEFAULT 0,
    -- The ask that was in force when another login ended ours: only a later one may log in again.
    kicked_at_ask bigint,
    state         text        NOT NULL DEFAULT 'disconnected',
    detail        text        NOT NULL DEFAULT '',
    username      text,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
INSERT INTO soulseek_account DEFAULT VALUES;

-- One row to lock: who holds it counts and passes.
CREATE TABLE soulseek_gate (is_the_one boolean PRIMARY KEY DEFAULT true CHECK (is_the_one));
INSERT INTO soulseek_gate DEFAULT VALUES;

-- Searches that wait at the gate, or passed it a short while ago, with what they found. A query is what somebody
-- typed: only its hash is kept, to know the same again.
CREATE TABLE soulseek_searches (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    query_hash  bytea       NOT NULL,
    asker       text        NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    waits_until timestamptz NOT NULL,
    passed_at   timestamptz,
    ends_at     timestamptz,
    answer      bytea
) WITH (fillfactor = 50);
CREATE INDEX soulseek_searches_passed_idx ON soulseek_searches (passed_at);
CREATE INDEX soulseek_searches_waiting_idx ON soulseek_searches (waits_until) WHERE passed_at IS NULL;
CREATE INDEX soulseek_searches_query_idx ON soulseek_searches (query_hash, passed_at);

CREATE TABLE soulseek_peers (
    peer           text        PRIMARY KEY,
    failures       integer     NOT NULL,
    reason         text        NOT NULL,
    last_failed_at timestamptz NOT NULL,
    blocked_until  timestamptz
) WITH (fillfactor = 80);
CREATE INDEX soulseek_peers_blocked_idx ON soulseek_peers (blocked_until);

-- What was chosen for a folder, so that whoever goes on after a crash neither searches nor chooses again. One that is
-- over stays for a while: what is left of its partial files is removed with it.
CREATE TABLE soulseek_plans (
    folder  text        PRIMARY KEY,
    plan    json,
    is_over boolean     NOT NULL DEFAULT false,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX soulseek_plans_made_idx ON soulseek_plans (made_at);
