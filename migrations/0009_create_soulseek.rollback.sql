DROP TABLE soulseek_plans;
DROP TABLE soulseek_peers;
DROP TABLE soulseek_searches;
DROP TABLE soulseek_gate;
DROP TABLE soulseek_account;
