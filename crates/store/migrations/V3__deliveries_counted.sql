-- Deliveries counted by the hour, in the statement that records their attempts.

-- What ended. `shard` keeps writers at the same time out of each other's rows.
CREATE TABLE delivery_stats (
    tenant_id       uuid NOT NULL,
    subscription_id uuid NOT NULL,
    hour            timestamptz NOT NULL,
    event_type      text NOT NULL,
    shard           smallint NOT NULL,
    delivered       bigint NOT NULL DEFAULT 0,
    -- Died.
    failed          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, subscription_id, hour, event_type, shard)
) WITH (fillfactor = 70);
CREATE INDEX delivery_stats_by_hour ON delivery_stats (hour);

-- Attempts by how long they took: bucket n holds up to 1.1^n - 1 ms, so a percentile is right to 10 %.
CREATE TABLE attempt_stats (
    tenant_id       uuid NOT NULL,
    subscription_id uuid NOT NULL,
    hour            timestamptz NOT NULL,
    bucket          smallint NOT NULL,
    shard           smallint NOT NULL,
    attempts        bigint NOT NULL,
    failed          bigint NOT NULL,
    millis          bigint NOT NULL,
    PRIMARY KEY (tenant_id, subscription_id, hour, bucket, shard)
) WITH (fillfactor = 70);
CREATE INDEX attempt_stats_by_hour ON attempt_stats (hour);
