-- Lists and counts that stay quick with millions of rows: an index for what a list is narrowed to, and
-- counts at the levels at which they are asked for.

-- What has ended badly or waits is rare among what was delivered.
CREATE INDEX deliveries_dead_by_tenant ON deliveries (tenant_id, id) WHERE state = 'dead';
CREATE INDEX deliveries_dead_by_subscription ON deliveries (subscription_id, id) WHERE state = 'dead';
CREATE INDEX deliveries_held_by_tenant ON deliveries (tenant_id, id) WHERE state = 'held';
CREATE INDEX deliveries_cancelled ON deliveries (id) WHERE state = 'cancelled';
CREATE INDEX deliveries_cancelled_by_tenant ON deliveries (tenant_id, id) WHERE state = 'cancelled';
CREATE INDEX deliveries_cancelled_by_subscription ON deliveries (subscription_id, id) WHERE state = 'cancelled';

-- COLLATE "C": the types below a prefix are one range (store::type_filter).
CREATE INDEX deliveries_by_type ON deliveries (tenant_id, event_type COLLATE "C", id);
CREATE INDEX deliveries_by_type_of_all ON deliveries (event_type COLLATE "C", id);
CREATE INDEX events_by_type ON events (tenant_id, event_type COLLATE "C", id);
CREATE INDEX events_by_type_of_all ON events (event_type COLLATE "C", id);
CREATE INDEX events_by_source ON events (source_id, id);
CREATE INDEX events_by_source_slug ON events (source_slug, id);

CREATE INDEX dead_letters_by_subscription ON dead_letters (subscription_id, id);
CREATE INDEX dead_letters_by_reason ON dead_letters (reason, id);
CREATE INDEX rejected_requests_by_reason ON rejected_requests (source_id, reason, id);

-- From here on the largest UUID in the place of a tenant, subscription or source stands for all of them:
-- the statements that count do so at every level.
INSERT INTO delivery_stats (tenant_id, subscription_id, hour, event_type, shard, delivered, failed)
SELECT coalesce(tenant_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), 'ffffffff-ffff-ffff-ffff-ffffffffffff', hour, event_type, 0,
       sum(delivered), sum(failed)
FROM delivery_stats GROUP BY GROUPING SETS ((tenant_id, hour, event_type), (hour, event_type));

INSERT INTO attempt_stats (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
SELECT coalesce(tenant_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'), 'ffffffff-ffff-ffff-ffff-ffffffffffff', hour, bucket, 0,
       sum(attempts), sum(failed), sum(millis)
FROM attempt_stats GROUP BY GROUPING SETS ((tenant_id, hour, bucket), (hour, bucket));

INSERT INTO event_stats (tenant_id, source_id, hour, event_type, shard, received, duplicates, schema_violations, last_received_at)
SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff', source_id, hour, event_type, 0, sum(received), sum(duplicates),
       sum(schema_violations), max(last_received_at)
FROM event_stats GROUP BY source_id, hour, event_type;

DROP INDEX event_stats_by_source;
CREATE INDEX event_stats_by_tenant ON event_stats (tenant_id, hour);

-- When an hour is over, the janitor merges its shards.
CREATE INDEX delivery_stats_unmerged ON delivery_stats (hour) WHERE shard > 0;
CREATE INDEX attempt_stats_unmerged ON attempt_stats (hour) WHERE shard > 0;
CREATE INDEX event_stats_unmerged ON event_stats (hour) WHERE shard > 0;
