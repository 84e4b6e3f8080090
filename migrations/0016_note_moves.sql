-- When the progress of a call last changed: one that moves is not cut off, one that stands still is.
-- depends: 0015_keep_bodies_plain

ALTER TABLE effect_leases ADD COLUMN moved_at timestamptz;
