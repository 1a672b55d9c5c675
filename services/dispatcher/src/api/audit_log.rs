//! `/v1/audit-log`: who changed what. The operator's.

use actix_web::web::Data;
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use posthorn_core::id::{AuditEntryId, TenantId};
use posthorn_core::redact;
use posthorn_core::time::Rfc3339;
use posthorn_store::GenericClient;
use posthorn_store::audit_log::{self, Entry, Filter};
use serde::Serialize;
use serde_json::Value;
use tracing_actix_web::RequestId;

use super::params::Params;
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

/// A change that is being made.
pub struct Change {
    action: &'static str,
    resource: &'static str,
    resource_id: String,
    tenant_id: Option<TenantId>,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    pub fn new(
        action: &'static str,
        resource: &'static str,
        resource_id: impl ToString,
        tenant_id: Option<TenantId>,
    ) -> Self {
        Self { action, resource, resource_id: resource_id.to_string(), tenant_id, before: None, after: None }
    }

    /// What it was: a view, which shows no secret.
    pub fn before(self, view: &impl Serialize) -> Self {
        Self { before: serde_json::to_value(view).ok(), ..self }
    }

    /// What it is now.
    pub fn after(self, view: &impl Serialize) -> Self {
        Self { after: serde_json::to_value(view).ok(), ..self }
    }

    /// Writes it down, in the transaction of the change.
    pub async fn record(self, db: &impl GenericClient, caller: Caller, request: &HttpRequest) -> ApiResult<()> {
        let request_id = request.extensions().get::<RequestId>().map(|id| format!("req_{}", id.simple()));
        let entry = Entry {
            id: AuditEntryId::new(now(), rand::random()),
            actor: caller.name(),
            action: self.action.to_owned(),
            resource: self.resource.to_owned(),
            resource_id: self.resource_id,
            tenant_id: self.tenant_id,
            before: self.before,
            after: self.after,
            request_id,
        };
        Ok(audit_log::insert(db, &entry).await?)
    }
}

/// A view without the credentials in a subscription's own headers, which older versions wrote in clear.
fn without_credentials(mut view: Value) -> Value {
    if let Some(headers) = view.get_mut("headers") {
        *headers = redact::without_secret_headers(headers.take());
    }
    view
}

#[derive(Serialize)]
struct View {
    id: AuditEntryId,
    at: Rfc3339,
    actor: String,
    action: String,
    resource: String,
    resource_id: String,
    tenant_id: Option<TenantId>,
    before: Option<Value>,
    after: Option<Value>,
    request_id: Option<String>,
}

impl From<Entry> for View {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            at: Rfc3339(entry.at()),
            actor: entry.actor,
            action: entry.action,
            resource: entry.resource,
            resource_id: entry.resource_id,
            tenant_id: entry.tenant_id,
            before: entry.before.map(without_credentials),
            after: entry.after.map(without_credentials),
            request_id: entry.request_id,
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    let params = Params::of(&request, &["tenant_id", "resource_id", "from", "to", "limit", "cursor"])?;
    let page = params.page()?;
    let resource_id = params.text("resource_id").map(str::to_owned);
    if resource_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 128) {
        return Err(ApiError::field("resource_id", "must be a text of 1 to 128 characters"));
    }
    // Not `Caller::scope`: the changes of a tenant that was deleted stay.
    let filter = Filter { tenant_id: params.tenant()?, resource_id, span: params.span()? };
    let rows = audit_log::list(&api.store.client().await?, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |entry| *entry.id.as_uuid(), View::from)))
}
