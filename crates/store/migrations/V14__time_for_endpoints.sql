-- An endpoint that asks for time (429, 503 with Retry-After) gets it: its subscription waits, and no attempt is spent.
-- Breakers look at a stretch of time, which each delivery-worker keeps in memory, and several probes decide.

ALTER TABLE subscription_runtime
    -- Nothing is sent before then; and how many deliveries a second go right after it.
    ADD COLUMN hold_until       timestamptz,
    ADD COLUMN hold_per_second  double precision,
    -- How the probes of this half-open phase ended so far.
    ADD COLUMN probes_succeeded smallint NOT NULL DEFAULT 0,
    ADD COLUMN probes_failed    smallint NOT NULL DEFAULT 0;
-- recent_failures and recent_count are no longer written. Workers of the version before do so during an upgrade, so the
-- columns go with a later version.

-- Attempts of this generation at which the endpoint asked for time: the retry policy does not count them.
ALTER TABLE deliveries ADD COLUMN not_now integer NOT NULL DEFAULT 0;
