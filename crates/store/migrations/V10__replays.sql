-- Replay jobs: what is dead or missing is set going again in batches, each of them one transaction.

CREATE TABLE replays (
    id              uuid PRIMARY KEY,
    -- NULL: the operator's, over all tenants.
    tenant_id       uuid,
    kind            text NOT NULL CHECK (kind IN ('dead_letters', 'recover')),
    -- Of a `recover` alone.
    subscription_id uuid,
    filter          jsonb NOT NULL,
    state           text NOT NULL CHECK (state IN ('counting', 'running', 'completed', 'cancelled')),
    dry_run         boolean NOT NULL,
    -- Whether `count` is known.
    counted         boolean NOT NULL,
    rate_per_second double precision NOT NULL,
    -- How many there are to set going; how many are; how many could not be.
    count           bigint NOT NULL DEFAULT 0,
    done            bigint NOT NULL DEFAULT 0,
    failed          bigint NOT NULL DEFAULT 0,
    -- Dead letters, or events, up to this id are dealt with; from `through` on, none are.
    position        uuid NOT NULL,
    through         uuid NOT NULL,
    -- Token bucket of the rate.
    tokens          double precision NOT NULL DEFAULT 0,
    tokens_at       timestamptz,
    -- When somebody is to go on with it.
    due_at          timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    finished_at     timestamptz
);
CREATE INDEX replays_by_tenant ON replays (tenant_id, id);
CREATE INDEX replays_due ON replays (due_at) WHERE state IN ('counting', 'running');

ALTER TABLE dead_letters ADD COLUMN event_type text;
UPDATE dead_letters l SET event_type = d.event_type FROM deliveries d WHERE d.id = l.delivery_id;
