DROP INDEX events_causation_id_idx;
