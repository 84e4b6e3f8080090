DROP INDEX api_keys_user_id_idx;
DROP TABLE users;
DROP TABLE subject_keys;
DROP FUNCTION refuse_resurrection();
