-- When a deleted tenant is erased to the last row, the audit log says so, and of how many rows.

ALTER TABLE tenants ADD COLUMN erased_rows bigint NOT NULL DEFAULT 0;

-- Posthorn's own doings have no request.
ALTER TABLE audit_log ALTER COLUMN request_id DROP NOT NULL;
