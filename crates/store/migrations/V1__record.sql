-- The record of Posthorn. Conventions:
--   ids are UUIDv7 (or v8 with the same time prefix), so they sort by time and choose the partition;
--   every tenant-owned table has tenant_id first in its indexes and in every WHERE;
--   partitions are made and dropped by code (store::partitions), there is no DEFAULT partition;
--   a change of configuration tells every process through NOTIFY (posthorn_announce, below).

CREATE TABLE tenants (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    external_id text UNIQUE,
    -- Set by DELETE: invisible from then on, erased in batches by the janitor.
    deleted_at  timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name         text NOT NULL,
    scopes       text[] NOT NULL,
    -- The first characters, to recognise a key by; the key itself is kept as SHA-256 only.
    prefix       text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    expires_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz NOT NULL
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, id);

CREATE TABLE sources (
    id             uuid PRIMARY KEY,
    -- The owner; NULL for the operator's.
    tenant_id      uuid REFERENCES tenants ON DELETE CASCADE,
    -- What stands in the URL: the operator's choice, or opaque for a tenant's source.
    slug           text UNIQUE,
    token          text UNIQUE,
    provider       text NOT NULL,
    routing        jsonb NOT NULL,
    -- Without secrets.
    config         jsonb NOT NULL,
    rate_limit     jsonb,
    allowed_ips    text[] NOT NULL DEFAULT '{}',
    max_body_bytes integer,
    response       jsonb,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK ((slug IS NULL) <> (token IS NULL))
);
CREATE INDEX sources_by_tenant ON sources (tenant_id, id);

CREATE TABLE source_secrets (
    id          uuid PRIMARY KEY,
    source_id   uuid NOT NULL REFERENCES sources ON DELETE CASCADE,
    -- AES-256-GCM, key id in front (store::seal).
    sealed      bytea NOT NULL,
    -- First 12 hex digits of the secret's SHA-256.
    fingerprint text NOT NULL,
    -- Order within the source's configuration.
    position    integer NOT NULL,
    expires_at  timestamptz,
    created_at  timestamptz NOT NULL
);
CREATE INDEX source_secrets_by_source ON source_secrets (source_id, position);

CREATE TABLE subscriptions (
    id              uuid PRIMARY KEY,
    tenant_id       uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    name            text,
    description     text,
    url             text NOT NULL,
    event_types     text[] NOT NULL,
    sources         text[] NOT NULL DEFAULT '{}',
    state           text NOT NULL CHECK (state IN ('active', 'paused', 'disabled')),
    disabled_reason text,
    retry_policy    jsonb NOT NULL,
    timeout_seconds integer NOT NULL,
    rate_limit      jsonb,
    max_in_flight   integer NOT NULL,
    headers         jsonb NOT NULL DEFAULT '{}',
    payload_format  text NOT NULL,
    signatures      jsonb NOT NULL,
    -- Set by DELETE: invisible from then on; the scheduler cancels what still waits for it.
    deleted_at      timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant_id, id);

CREATE TABLE subscription_secrets (
    id              uuid PRIMARY KEY,
    subscription_id uuid NOT NULL REFERENCES subscriptions ON DELETE CASCADE,
    sealed          bytea NOT NULL,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL
);
CREATE INDEX subscription_secrets_by_subscription ON subscription_secrets (subscription_id, created_at DESC);

-- What changes with every delivery, apart from what changes by hand.
CREATE TABLE subscription_runtime (
    subscription_id      uuid PRIMARY KEY REFERENCES subscriptions ON DELETE CASCADE,
    tenant_id            uuid NOT NULL,
    delivered            bigint NOT NULL DEFAULT 0,
    failed               bigint NOT NULL DEFAULT 0,
    last_triggered_at    timestamptz,
    -- The earliest due_at among its held deliveries, or earlier. NULL: the scheduler need not look.
    next_due_at          timestamptz,
    -- Token bucket of the rate limit.
    tokens               double precision NOT NULL DEFAULT 0,
    tokens_at            timestamptz
) WITH (fillfactor = 50);
CREATE INDEX subscription_runtime_due ON subscription_runtime (next_due_at) WHERE next_due_at IS NOT NULL;

CREATE TABLE events (
    id                uuid PRIMARY KEY,
    -- NULL when unrouted or broadcast.
    tenant_id         uuid,
    audience          text NOT NULL CHECK (audience IN ('tenant', 'broadcast', 'unrouted')),
    source_id         uuid NOT NULL,
    source_slug       text NOT NULL,
    event_type        text NOT NULL,
    provider_event_id text,
    dedup_key         uuid NOT NULL,
    -- By the provider's clock; NULL when it does not say.
    occurred_at       timestamptz,
    received_at       timestamptz NOT NULL,
    duplicates        integer NOT NULL DEFAULT 0,
    headers           jsonb NOT NULL,
    content_type      text NOT NULL,
    traceparent       text NOT NULL DEFAULT '',
    body              bytea COMPRESSION lz4 NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX events_by_tenant ON events (tenant_id, id);

CREATE TABLE event_dedup (
    bucket    date NOT NULL,
    dedup_key uuid NOT NULL,
    event_id  uuid NOT NULL,
    PRIMARY KEY (dedup_key, bucket)
) PARTITION BY RANGE (bucket);

CREATE TABLE outbox (
    event_id uuid PRIMARY KEY,
    -- When the relay may take it: the gateway that accepted the event is given a few seconds first.
    due_at   timestamptz NOT NULL
);
CREATE INDEX outbox_due ON outbox (due_at);

CREATE TABLE deliveries (
    id              uuid PRIMARY KEY,
    event_id        uuid NOT NULL,
    subscription_id uuid NOT NULL,
    tenant_id       uuid NOT NULL,
    event_type      text NOT NULL,
    state           text NOT NULL CHECK (state IN ('held', 'queued', 'delivered', 'dead', 'cancelled')),
    held_reason     text,
    -- held: when to go on. queued: the lease; if nothing was recorded by then, the message is lost.
    due_at          timestamptz,
    dead_reason     text,
    -- Counts replays, from 1.
    generation      integer NOT NULL DEFAULT 1,
    -- Attempts recorded in this generation, and in all.
    attempt         integer NOT NULL DEFAULT 0,
    attempts_made   integer NOT NULL DEFAULT 0,
    -- What brings the next attempt about.
    trigger         text NOT NULL DEFAULT 'dispatch',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_by_tenant ON deliveries (tenant_id, id);
CREATE INDEX deliveries_by_subscription ON deliveries (subscription_id, id);
CREATE INDEX deliveries_held ON deliveries (subscription_id, due_at) WHERE state = 'held';
CREATE INDEX deliveries_queued ON deliveries (due_at) WHERE state = 'queued';
CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 'dead';

-- No index by delivery: an attempt's id shares the millisecond of its delivery's, and is found by that range.
CREATE TABLE attempts (
    id               uuid PRIMARY KEY,
    delivery_id      uuid NOT NULL,
    subscription_id  uuid NOT NULL,
    tenant_id        uuid NOT NULL,
    generation       integer NOT NULL,
    number           integer NOT NULL,
    trigger          text NOT NULL,
    started_at       timestamptz NOT NULL,
    response_time_ms integer NOT NULL,
    -- NULL without an answer.
    status_code      integer,
    -- A code, then a sentence; NULL when accepted.
    error            text,
    error_detail     text,
    response         text,
    response_headers jsonb,
    request_headers  jsonb NOT NULL
) PARTITION BY RANGE (id);

CREATE TABLE dead_letters (
    id              uuid PRIMARY KEY,
    -- The same dead letter twice is one row.
    fingerprint     uuid NOT NULL UNIQUE,
    reason          text NOT NULL,
    delivery_id     uuid,
    subscription_id uuid,
    event_id        uuid,
    tenant_id       uuid,
    generation      integer,
    error           text,
    -- The message, where it is all there is.
    message         bytea,
    died_at         timestamptz NOT NULL
);
CREATE INDEX dead_letters_by_tenant ON dead_letters (tenant_id, id);
CREATE INDEX dead_letters_by_delivery ON dead_letters (delivery_id);

CREATE TABLE rejected_requests (
    id          uuid PRIMARY KEY,
    -- NULL when the source is unknown.
    source_id   uuid,
    tenant_id   uuid,
    reason      text NOT NULL,
    detail      text NOT NULL,
    received_at timestamptz NOT NULL,
    address     text NOT NULL,
    body_bytes  integer NOT NULL,
    -- Method, target, headers and body, sealed: headers may carry tokens.
    request     bytea
);
CREATE INDEX rejected_requests_by_tenant ON rejected_requests (tenant_id, id);
CREATE INDEX rejected_requests_by_source ON rejected_requests (source_id, id);

CREATE TABLE idempotency_keys (
    -- The caller: a tenant, or the operator (nil UUID).
    actor        uuid NOT NULL,
    key          text NOT NULL,
    -- SHA-256 of method, path and body.
    request_hash bytea NOT NULL,
    status       integer,
    -- Sealed: it may show a secret.
    response     bytea,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Tells every process which row of configuration changed. The channel carries the schema's name, so
-- that several deployments can share a database.
CREATE FUNCTION posthorn_announce() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    kind text := TG_ARGV[0];
    id text := changed ->> TG_ARGV[1];
BEGIN
    PERFORM pg_notify('posthorn_' || TG_TABLE_SCHEMA, kind || ':' || id);
    RETURN NULL;
END
$$;

CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON subscriptions
    FOR EACH ROW EXECUTE FUNCTION posthorn_announce('subscription', 'id');
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON subscription_secrets
    FOR EACH ROW EXECUTE FUNCTION posthorn_announce('subscription', 'subscription_id');
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON sources
    FOR EACH ROW EXECUTE FUNCTION posthorn_announce('source', 'id');
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON source_secrets
    FOR EACH ROW EXECUTE FUNCTION posthorn_announce('source', 'source_id');
