DROP TABLE dead_letters;
DROP TABLE reactions;
DROP TABLE group_checkpoints;
DROP TABLE leases;
