DROP INDEX download_jobs_deadline_idx;
ALTER TABLE download_jobs DROP COLUMN deadline_at, DROP COLUMN is_partial;
