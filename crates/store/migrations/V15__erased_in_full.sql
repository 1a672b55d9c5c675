-- Erasing a tenant: what Posthorn itself writes into the audit log has no request, and could never be blanked, since a row
-- value with a NULL in it equals nothing. Chores run each by itself, and the record knows when each last succeeded.

CREATE OR REPLACE FUNCTION posthorn_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.before IS NULL AND NEW.after IS NULL
       AND (NEW.id, NEW.actor, NEW.action, NEW.resource, NEW.resource_id, NEW.request_id, NEW.tenant_id)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.actor, OLD.action, OLD.resource, OLD.resource_id, OLD.request_id, OLD.tenant_id) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;

-- The few that are deleted and not erased yet: what they leave behind is shown to nobody meanwhile.
CREATE INDEX tenants_deleted ON tenants (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE chore_runs (
    name            text PRIMARY KEY,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    -- Why it failed, for operators; NULL since it succeeded.
    last_error      text
);
