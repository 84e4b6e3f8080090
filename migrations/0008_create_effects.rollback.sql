DROP TABLE effect_breakers;
DROP TABLE effect_leases;
DROP TABLE effects;
