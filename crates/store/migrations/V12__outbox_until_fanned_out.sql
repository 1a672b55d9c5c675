-- An outbox row stays until its event's deliveries are made, and goes in the statement that makes them: a broker that
-- loses what it confirmed loses nothing. A wide event has a row for each of its parts, by subscription ids, both
-- included; what is not split is one part with all of them.
ALTER TABLE outbox
    ADD COLUMN first_subscription_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ADD COLUMN last_subscription_id  uuid NOT NULL DEFAULT 'ffffffff-ffff-ffff-ffff-ffffffffffff',
    ADD COLUMN written_at timestamptz NOT NULL DEFAULT now(),
    DROP CONSTRAINT outbox_pkey,
    ADD PRIMARY KEY (event_id, first_subscription_id);
