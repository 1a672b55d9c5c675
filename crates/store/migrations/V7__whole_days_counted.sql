-- Counts of whole days beside those of their hours, for statistics over weeks (store::rollup).

-- Every day before this one has its rows: `hour` is midnight in UTC, `shard` is -1.
CREATE TABLE stats_days (through timestamptz NOT NULL);
INSERT INTO stats_days (through)
SELECT date_trunc('day', least(now(), (SELECT min(hour) FROM delivery_stats), (SELECT min(hour) FROM attempt_stats),
                               (SELECT min(hour) FROM event_stats)), 'UTC');

CREATE INDEX delivery_stats_days ON delivery_stats (tenant_id, subscription_id, hour) WHERE shard = -1;
CREATE INDEX attempt_stats_days ON attempt_stats (tenant_id, subscription_id, hour) WHERE shard = -1;
CREATE INDEX event_stats_days ON event_stats (tenant_id, source_id, hour) WHERE shard = -1;
