ALTER TABLE effect_leases DROP COLUMN moved_at;
