-- Subscriptions whose deliveries go one after another.

ALTER TABLE subscriptions
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    -- How long a delivery that fails holds up those behind it.
    ADD COLUMN ordered_max_block_seconds integer NOT NULL DEFAULT 3600;
