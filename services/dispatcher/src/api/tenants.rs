//! `/v1/tenants`: the operator's.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::TenantId;
use posthorn_core::time::Rfc3339;
use posthorn_process::problem::FieldError;
use posthorn_store::tenants::{self, Tenant};
use posthorn_store::{Error, page::Page};
use serde::{Deserialize, Serialize};

use super::audit_log::Change;
use super::body::{Body, Checks, given, nullable};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now, version};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: TenantId,
    name: String,
    external_id: Option<String>,
    created_at: Rfc3339,
    updated_at: Rfc3339,
}

impl From<Tenant> for View {
    fn from(tenant: Tenant) -> Self {
        let Tenant { id, name, external_id, created_at, updated_at } = tenant;
        Self { id, name, external_id, created_at: Rfc3339(created_at), updated_at: Rfc3339(updated_at) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    external_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    external_id: Option<Option<String>>,
}

pub async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let create: Create = body.parse(Shape::TenantCreate)?;
    let now = now();
    let tenant = Tenant {
        id: TenantId::new(now, rand::random()),
        name: create.name,
        external_id: create.external_id,
        created_at: now,
        updated_at: now,
    };
    check(&tenant)?;
    let once = Once::of(caller, &request, &body.0)?;
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    tenants::insert(&transaction, &tenant).await.map_err(taken)?;
    let view = View::from(tenant);
    Change::new("create", "tenant", view.id, Some(view.id)).after(&view).record(&transaction, caller, &request).await?;
    once.created(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    let params = Params::of(&request, &["external_id", "limit", "cursor"])?;
    let page: Page = params.page()?;
    let client = api.store.client().await?;
    let rows = tenants::list(&client, params.text("external_id"), page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |tenant| *tenant.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let id: TenantId = path_id("tenant", &id)?;
    let client = api.store.client().await?;
    let tenant = tenants::find(&client, id).await?.ok_or_else(|| ApiError::not_found("tenant", id))?;
    let updated_at = tenant.updated_at;
    Ok(version::shown(&View::from(tenant), updated_at))
}

pub async fn update(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let id: TenantId = path_id("tenant", &id)?;
    let update: Update = body.parse(Shape::TenantUpdate)?;
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let mut tenant = tenants::lock(&transaction, id).await?.ok_or_else(|| ApiError::not_found("tenant", id))?;
    version::check(&request, tenant.updated_at)?;
    let before = View::from(tenant.clone());
    tenant.name = update.name.unwrap_or(tenant.name);
    tenant.external_id = update.external_id.unwrap_or(tenant.external_id);
    tenant.updated_at = now();
    check(&tenant)?;
    tenants::update(&transaction, &tenant).await.map_err(taken)?;
    let updated_at = tenant.updated_at;
    let view = View::from(tenant);
    let change = Change::new("update", "tenant", id, Some(id)).before(&before).after(&view);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(version::shown(&view, updated_at))
}

pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let id: TenantId = path_id("tenant", &id)?;
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let tenant = tenants::lock(&transaction, id).await?.ok_or_else(|| ApiError::not_found("tenant", id))?;
    version::check(&request, tenant.updated_at)?;
    tenants::delete(&transaction, id, now()).await?;
    // What it was called goes with it.
    Change::new("delete", "tenant", id, Some(id)).record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}

fn check(tenant: &Tenant) -> ApiResult<()> {
    let mut checks = Checks::default();
    checks.name("/name", &tenant.name);
    if let Some(external_id) = &tenant.external_id {
        checks.name("/external_id", external_id);
    }
    checks.finish()
}

fn taken(error: Error) -> ApiError {
    match error {
        Error::Constraint { constraint } if constraint == tenants::EXTERNAL_ID_UNIQUE => ApiError::Conflict {
            detail: "the `external_id` is taken".to_owned(),
            errors: vec![FieldError { pointer: "/external_id".to_owned(), detail: "is taken".to_owned() }],
        },
        other => other.into(),
    }
}
