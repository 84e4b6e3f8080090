-- What an event caused: trace follows it down as well as up, over every correlation id.
-- depends: 0005_create_download_jobs

CREATE INDEX events_causation_id_idx ON events (causation_id) WHERE causation_id IS NOT NULL;
