-- Who changed what.

CREATE TABLE audit_log (
    id          uuid PRIMARY KEY,
    -- `operator`, or the id of a tenant's key.
    actor       text NOT NULL,
    action      text NOT NULL,
    resource    text NOT NULL,
    resource_id text NOT NULL,
    tenant_id   uuid,
    -- Without secrets; NULL where there was or is nothing, and after the tenant was erased.
    before      jsonb,
    after       jsonb,
    request_id  text NOT NULL
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant_id, id);
CREATE INDEX audit_log_by_resource ON audit_log (resource_id, id);

-- Append-only: a row stays as it was written, but for what an erased tenant must not leave behind.
CREATE FUNCTION posthorn_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.before IS NULL AND NEW.after IS NULL
       AND (NEW.id, NEW.actor, NEW.action, NEW.resource, NEW.resource_id, NEW.request_id)
         = (OLD.id, OLD.actor, OLD.action, OLD.resource, OLD.resource_id, OLD.request_id)
       AND NEW.tenant_id IS NOT DISTINCT FROM OLD.tenant_id THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION posthorn_append_only();
