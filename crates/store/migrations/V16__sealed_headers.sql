-- Credentials among a subscription's own headers are sealed.

-- `headers` then holds `{"fingerprint": "…"}` in the place of the value. Processes of an older version cannot read such a
-- row: they keep the subscription as they last read it, and so never send without the credential.
ALTER TABLE subscriptions
    -- Name to value, sealed for the subscription's id. NULL: no header is sealed.
    ADD COLUMN sealed_headers bytea;

-- The dispatcher seals what older versions stored in clear.
INSERT INTO chores (name, due_at) VALUES ('seal_headers', now());
