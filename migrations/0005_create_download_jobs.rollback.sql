DROP TABLE download_jobs;
DROP TABLE correlation_keys;
