DROP VIEW webhook_events;
DROP TABLE event_positions;
