-- TLS of a subscription's own: authorities in PEM, and a certificate with its key.

ALTER TABLE subscriptions
    ADD COLUMN tls_ca_bundle text,
    ADD COLUMN tls_client_certificate text,
    -- Sealed for the subscription's id.
    ADD COLUMN tls_client_key bytea,
    ADD CONSTRAINT tls_certificate_has_its_key CHECK ((tls_client_certificate IS NULL) = (tls_client_key IS NULL));
