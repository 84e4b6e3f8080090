ALTER TABLE events RESET (toast_tuple_target);
