-- Sources as a whole resource: the catalogue of event types, validation, and what is counted.

CREATE TABLE event_types (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    description text,
    -- JSON Schema of the payload.
    schema      jsonb,
    sample      jsonb,
    archived    boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON event_types
    FOR EACH ROW EXECUTE FUNCTION posthorn_announce('event_type', 'id');

ALTER TABLE sources ADD COLUMN validate text NOT NULL DEFAULT 'off' CHECK (validate IN ('off', 'report', 'enforce'));

-- What the payload has that its schema does not allow; NULL where nothing was found or asked.
ALTER TABLE events ADD COLUMN schema_violation text;
-- Those that wait for somebody to say whose they are.
CREATE INDEX events_unrouted ON events (id) WHERE audience = 'unrouted';

-- Apart from source_secrets, whose changes are announced.
CREATE TABLE source_secret_matches (
    secret_id       uuid PRIMARY KEY REFERENCES source_secrets ON DELETE CASCADE,
    matched         bigint NOT NULL,
    last_matched_at timestamptz NOT NULL
);

-- What was accepted, by the hour; written in the statement that accepts. `shard` keeps writers at
-- the same time out of each other's rows. The nil UUID stands for no tenant (broadcast, unrouted).
CREATE TABLE event_stats (
    tenant_id         uuid NOT NULL,
    source_id         uuid NOT NULL,
    hour              timestamptz NOT NULL,
    event_type        text NOT NULL,
    shard             smallint NOT NULL,
    received          bigint NOT NULL DEFAULT 0,
    duplicates        bigint NOT NULL DEFAULT 0,
    schema_violations bigint NOT NULL DEFAULT 0,
    -- When the last one came that was new.
    last_received_at  timestamptz,
    PRIMARY KEY (tenant_id, source_id, hour, event_type, shard)
) WITH (fillfactor = 70);
CREATE INDEX event_stats_by_source ON event_stats (source_id, hour);
CREATE INDEX event_stats_by_hour ON event_stats (hour);

-- What was refused, by the hour, kept or not.
CREATE TABLE refusal_stats (
    source_id       uuid NOT NULL,
    hour            timestamptz NOT NULL,
    reason          text NOT NULL,
    refused         bigint NOT NULL,
    last_refused_at timestamptz NOT NULL,
    PRIMARY KEY (source_id, hour, reason)
);
CREATE INDEX refusal_stats_by_hour ON refusal_stats (hour);
