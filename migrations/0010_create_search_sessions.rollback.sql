DROP TABLE search_sessions;
