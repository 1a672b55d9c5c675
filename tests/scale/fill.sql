-- A million deliveries of half a million events in thirty days, for tests/scale/measure.py. Run it once, on a
-- deployment of its own with the demo's sources in it: rows go in beside those that are there.
--
-- 50 tenants of 5 subscriptions each. The first has six tenths of everything, the third hardly any dead
-- deliveries. One event type in ten thousand is `rare.type`.
\set ON_ERROR_STOP on
\set everyone '\'ffffffff-ffff-ffff-ffff-ffffffffffff\'::uuid'
BEGIN;
SET LOCAL statement_timeout = 0;

-- An id as Posthorn makes them: milliseconds, version 8, and what tells `n` apart.
CREATE FUNCTION pg_temp.id_at(at timestamptz, n bigint) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '8' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text || 'x'), 1, 15))::uuid
$$;

-- Partitions for the days gone by, which the dispatcher does not make.
DO $$
DECLARE
    day date;
    parent text;
    bounds uuid[];
BEGIN
    FOR day IN SELECT current_date - n FROM generate_series(0, 29) AS n LOOP
        bounds := ARRAY(
            SELECT rpad(lpad(to_hex((extract(epoch FROM midnight AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0'), 32, '0')::uuid
            FROM (VALUES (day::timestamp), (day::timestamp + interval '1 day')) AS t (midnight));
        FOREACH parent IN ARRAY ARRAY['events', 'deliveries', 'attempts'] LOOP
            EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                           parent || '_' || to_char(day, 'YYYYMMDD'), parent, bounds[1], bounds[2]);
        END LOOP;
    END LOOP;
END
$$;

CREATE TEMP TABLE scale_tenants AS
SELECT n, pg_temp.id_at(now() - interval '40 days', n) AS id FROM generate_series(1, 50) AS n;
INSERT INTO tenants (id, name, external_id, created_at, updated_at)
SELECT id, 'Tenant ' || n, 'scale-' || n, now(), now() FROM scale_tenants;

CREATE TEMP TABLE scale_subscriptions AS
SELECT t.n AS tenant, s AS number, t.id AS tenant_id, pg_temp.id_at(now() - interval '40 days', 1000 + t.n * 10 + s) AS id
FROM scale_tenants t, generate_series(1, 5) AS s;
INSERT INTO subscriptions (id, tenant_id, name, url, event_types, state, retry_policy, timeout_seconds, max_in_flight,
                           payload_format, signatures, created_at, updated_at)
SELECT id, tenant_id, 'Subscription ' || number, 'http://127.0.0.1:9/', '{*}', 'paused',
       '{"kind": "schedule", "delays_seconds": [60]}', 10, 8, 'standard', '[{"scheme": "standard"}]', now(), now()
FROM scale_subscriptions;
INSERT INTO subscription_runtime (subscription_id, tenant_id) SELECT id, tenant_id FROM scale_subscriptions;

CREATE TEMP TABLE scale_sources AS
SELECT row_number() OVER (ORDER BY id) AS n, id, slug FROM sources WHERE slug IS NOT NULL;

CREATE TEMP TABLE scale_events AS
SELECT n, now() - interval '28 days' * (n / 500000.0) AS at,
       CASE WHEN random() < 0.6 THEN 1 ELSE 2 + floor(random() * 49)::int END AS tenant,
       1 + floor(power(random(), 2) * (SELECT count(*) FROM scale_sources))::int AS source,
       CASE WHEN n % 10007 = 0 THEN 'rare.type'
            ELSE 'kind' || floor(power(random(), 3) * 11) || '.act' || floor(random() * 2) END AS event_type
FROM generate_series(1, 500000) AS n;
INSERT INTO events (id, tenant_id, audience, source_id, source_slug, event_type, dedup_key, received_at, headers, content_type, body)
SELECT pg_temp.id_at(e.at, e.n), t.id, 'tenant', s.id, s.slug, e.event_type, md5(e.n::text)::uuid, e.at,
       '{"content-type": "application/json"}', 'application/json',
       convert_to(format('{"id": %s, "text": "%s"}', e.n, repeat('x', 200)), 'UTF8')
FROM scale_events e JOIN scale_tenants t ON t.n = e.tenant JOIN scale_sources s ON s.n = e.source;

-- Two for each event. Of those that are dead, a hundredth in general and next to none of the third tenant's.
CREATE TEMP TABLE scale_deliveries AS
SELECT pg_temp.id_at(e.at, 1000000 + e.n * 2 + k) AS id, pg_temp.id_at(e.at, e.n) AS event_id, s.id AS subscription_id, s.tenant_id,
       e.event_type, e.at, e.n * 2 + k AS n, pg_temp.id_at(e.at, 5000000 + e.n * 2 + k) AS attempt_id, (random() * 200)::int AS millis,
       CASE WHEN r < 0.01 AND (e.tenant <> 3 OR r < 0.0005) THEN 'dead'
            WHEN r < 0.02 AND e.n < 20000 THEN 'held'
            WHEN r BETWEEN 0.02 AND 0.025 THEN 'cancelled'
            ELSE 'delivered' END AS state
FROM (SELECT *, random() AS r FROM scale_events, generate_series(0, 1) AS k) e
JOIN scale_subscriptions s ON s.tenant = e.tenant AND s.number = 1 + (e.n + e.k) % 5;
INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, dead_reason,
                        attempt, attempts_made, created_at, updated_at)
SELECT id, event_id, subscription_id, tenant_id, event_type, state, CASE state WHEN 'held' THEN 'retry' END,
       CASE state WHEN 'held' THEN now() + interval '9 days' END, CASE state WHEN 'dead' THEN 'exhausted' END, 1, 1, at, at
FROM scale_deliveries;
INSERT INTO attempts (id, delivery_id, subscription_id, tenant_id, generation, number, trigger, started_at, response_time_ms,
                      status_code, response, request_headers)
SELECT attempt_id, id, subscription_id, tenant_id, 1, 1, 'dispatch', at, millis, 200, 'ok', '{"content-type": "application/json"}'
FROM scale_deliveries;
INSERT INTO dead_letters (id, fingerprint, reason, delivery_id, subscription_id, event_id, tenant_id, generation, error, died_at)
SELECT pg_temp.id_at(at, 9000000 + n), md5(id::text)::uuid, CASE WHEN n % 500 = 0 THEN 'gone' ELSE 'exhausted' END, id,
       subscription_id, event_id, tenant_id, 1, 'status_500', at
FROM scale_deliveries WHERE state = 'dead';

-- Counts as the services keep them; the janitor merges the shards.
INSERT INTO delivery_stats AS s (tenant_id, subscription_id, hour, event_type, shard, delivered, failed)
SELECT coalesce(tenant_id, :everyone), coalesce(subscription_id, :everyone), hour, event_type, shard,
       count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'dead')
FROM (SELECT *, date_trunc('hour', at) AS hour, n % 16 AS shard FROM scale_deliveries) d
GROUP BY GROUPING SETS ((tenant_id, subscription_id, hour, event_type, shard), (tenant_id, hour, event_type, shard),
                        (hour, event_type, shard))
ON CONFLICT (tenant_id, subscription_id, hour, event_type, shard) DO UPDATE
SET delivered = s.delivered + excluded.delivered, failed = s.failed + excluded.failed;
INSERT INTO attempt_stats AS s (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
SELECT coalesce(tenant_id, :everyone), coalesce(subscription_id, :everyone), hour, bucket, shard, count(*), 0, sum(millis)
FROM (SELECT *, date_trunc('hour', at) AS hour, n % 16 AS shard, ceil(ln(millis + 1) / ln(1.1))::smallint AS bucket
      FROM scale_deliveries) d
GROUP BY GROUPING SETS ((tenant_id, subscription_id, hour, bucket, shard), (tenant_id, hour, bucket, shard), (hour, bucket, shard))
ON CONFLICT (tenant_id, subscription_id, hour, bucket, shard) DO UPDATE
SET attempts = s.attempts + excluded.attempts, millis = s.millis + excluded.millis;
INSERT INTO event_stats AS s (tenant_id, source_id, hour, event_type, shard, received, last_received_at)
SELECT coalesce(tenant_id, :everyone), source_id, hour, event_type, shard, count(*), max(at)
FROM (SELECT t.id AS tenant_id, s.id AS source_id, date_trunc('hour', e.at) AS hour, e.event_type, e.n % 16 AS shard, e.at
      FROM scale_events e JOIN scale_tenants t ON t.n = e.tenant JOIN scale_sources s ON s.n = e.source) d
GROUP BY GROUPING SETS ((tenant_id, source_id, hour, event_type, shard), (source_id, hour, event_type, shard))
ON CONFLICT (tenant_id, source_id, hour, event_type, shard) DO UPDATE SET received = s.received + excluded.received;

INSERT INTO rejected_requests (id, source_id, reason, detail, received_at, address, body_bytes)
SELECT pg_temp.id_at(now() - interval '28 days' * (g.n / 20000.0), g.n), s.id,
       CASE WHEN g.n % 5000 = 0 THEN 'stale' ELSE 'signature_mismatch' END, 'x', now(), '192.0.2.1', 10
FROM generate_series(1, 20000) AS g (n) JOIN scale_sources s ON s.n = 1 + g.n % (SELECT count(*) FROM scale_sources);
INSERT INTO audit_log (id, actor, action, resource, resource_id, tenant_id, before, after, request_id)
SELECT pg_temp.id_at(now() - interval '28 days' * (g.n / 20000.0), g.n), 'operator', 'update', 'subscription', 'sub_' || g.n, t.id,
       '{}', '{}', 'req_' || md5(g.n::text)
FROM generate_series(1, 20000) AS g (n) JOIN scale_tenants t ON t.n = 1 + g.n % 50;

-- From here on the janitor adds up the days.
UPDATE stats_days SET through = least(through, date_trunc('day', now(), 'UTC') - interval '29 days');

COMMIT;
ANALYZE;
SELECT state, count(*) FROM deliveries GROUP BY state ORDER BY state;
