-- How an endpoint does, and what follows: the breaker, warnings, the end; and whose turn it is where deliveries are
-- ordered.

ALTER TABLE subscription_runtime
    -- Of the last attempts, at most 20: a bit for each failure, the newest lowest; and how many they are.
    ADD COLUMN recent_failures   integer NOT NULL DEFAULT 0,
    ADD COLUMN recent_count      integer NOT NULL DEFAULT 0,
    ADD COLUMN breaker           text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'half_open')),
    ADD COLUMN breaker_until     timestamptz,
    ADD COLUMN cooldowns         integer NOT NULL DEFAULT 0,
    -- When it closed for the last time: the backlog drains slowly for a while.
    ADD COLUMN breaker_closed_at timestamptz,
    -- The first failure since the last success.
    ADD COLUMN failing_since     timestamptz,
    ADD COLUMN warned_percent    smallint NOT NULL DEFAULT 0,
    ADD COLUMN warned_at         timestamptz,
    -- From when on something may be missing: since before the platform disabled it.
    ADD COLUMN recover_since     timestamptz,
    ADD COLUMN head              uuid,
    ADD COLUMN head_since        timestamptz;
-- In which generation its dead letter was written, whether or not that is still there.
ALTER TABLE deliveries ADD COLUMN told_generation integer;
-- What was tried and waits is little beside what waits for its turn.
CREATE INDEX deliveries_held_again ON deliveries (subscription_id, due_at) WHERE state = 'held' AND attempt > 0;

CREATE INDEX subscription_runtime_failing ON subscription_runtime (failing_since) WHERE failing_since IS NOT NULL;
