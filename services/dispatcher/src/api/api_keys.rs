//! `/v1/tenants/{id}/api-keys`: the operator's, for tenants.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use posthorn_core::id::{ApiKeyId, TenantId};
use posthorn_core::time::{Rfc3339, whole_micros};
use posthorn_store::api_keys::{self, ApiKey};
use posthorn_store::{Error, GenericClient, tenants};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::audit_log::Change;
use super::body::{Body, Checks};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

/// Characters of a key that are kept to recognise it by.
const PREFIX_LEN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Read,
    Write,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    scopes: Vec<Scope>,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct View {
    id: ApiKeyId,
    tenant_id: TenantId,
    name: String,
    scopes: Vec<String>,
    prefix: String,
    expires_at: Option<Rfc3339>,
    last_used_at: Option<Rfc3339>,
    created_at: Rfc3339,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<ApiKey> for View {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            tenant_id: key.tenant_id,
            name: key.name,
            scopes: key.scopes,
            prefix: key.prefix,
            expires_at: key.expires_at.map(Rfc3339),
            last_used_at: key.last_used_at.map(Rfc3339),
            created_at: Rfc3339(key.created_at),
            key: None,
        }
    }
}

pub async fn create(
    api: Data<Api>,
    caller: Caller,
    tenant: Path<String>,
    request: HttpRequest,
    body: Body,
) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let tenant_id: TenantId = path_id("tenant", &tenant)?;
    let create: Create = body.parse(Shape::ApiKeyCreate)?;
    let now = now();
    check(&create, now)?;
    let once = Once::of(caller, &request, &body.0)?;
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    exists(&transaction, tenant_id).await?;
    let secret = format!("phk_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let key = ApiKey {
        id: ApiKeyId::new(now, rand::random()),
        tenant_id,
        name: create.name,
        scopes: create.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        prefix: secret[..PREFIX_LEN].to_owned(),
        expires_at: create.expires_at.map(whole_micros),
        last_used_at: None,
        created_at: now,
    };
    api_keys::insert(&transaction, &key, digest(&SHA256, secret.as_bytes()).as_ref()).await?;
    let view = View::from(key);
    let change = Change::new("create", "api_key", view.id, Some(tenant_id)).after(&view);
    change.record(&transaction, caller, &request).await?;
    let view = View { key: Some(secret), ..view };
    once.created(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, tenant: Path<String>, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    let page = Params::of(&request, &["limit", "cursor"])?.page()?;
    let tenant: TenantId = path_id("tenant", &tenant)?;
    let client = api.store.client().await?;
    exists(&client, tenant).await?;
    let rows = api_keys::list(&client, tenant, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |key| *key.id.as_uuid(), View::from)))
}

pub async fn delete(api: Data<Api>, caller: Caller, ids: Path<(String, String)>, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let tenant: TenantId = path_id("tenant", &ids.0)?;
    let id: ApiKeyId = path_id("API key", &ids.1)?;
    let mut client = api.store.client().await?;
    exists(&client, tenant).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if !api_keys::delete(&transaction, tenant, id).await? {
        return Err(ApiError::not_found("API key", id));
    }
    Change::new("revoke", "api_key", id, Some(tenant)).record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    // Other replicas forget it when their memory of it runs out.
    api.known_keys.invalidate_all();
    Ok(HttpResponse::NoContent().finish())
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

fn check(create: &Create, now: Timestamp) -> ApiResult<()> {
    let mut checks = Checks::default();
    checks.name("/name", &create.name);
    let distinct = !matches!(create.scopes.as_slice(), [one, other] if one == other);
    checks.require((1..=2).contains(&create.scopes.len()) && distinct, "/scopes", "must have `read`, `write` or both");
    checks.require(create.expires_at.is_none_or(|at| at > now), "/expires_at", "must be in the future");
    checks.finish()
}

async fn exists(db: &impl GenericClient, tenant: TenantId) -> ApiResult<()> {
    tenants::find(db, tenant).await?.map(|_| ()).ok_or_else(|| ApiError::not_found("tenant", tenant))
}
