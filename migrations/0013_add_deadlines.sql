-- Nothing waits for ever: when an active download job has to have moved, for the sweep to find by index.
-- depends: 0012_create_polls

ALTER TABLE download_jobs
    ADD COLUMN deadline_at timestamptz,
    ADD COLUMN is_partial  boolean NOT NULL DEFAULT false;

-- Those without a deadline come first: they began before there were any.
CREATE INDEX download_jobs_deadline_idx ON download_jobs (coalesce(deadline_at, '-infinity'::timestamptz), stream)
 WHERE status IN ('requested', 'searching', 'downloading', 'importing');
