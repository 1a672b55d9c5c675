//! `/v1/sources`: the doors through which providers come.

mod checks;
mod secret;
mod stats;
mod trial;

use std::collections::HashMap;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_core::schema::Validation;
use posthorn_core::signature::{ConfigError, Verifier, split_secrets};
use posthorn_core::time::Rfc3339;
use posthorn_process::problem::FieldError;
use posthorn_store::sources::{self, SecretInfo, Source};
use posthorn_store::{Error, GenericClient, tenants};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::audit_log::Change;
use super::body::{Body, given, nullable};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now, version};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

use checks::check;
pub(crate) use checks::is_media_type;
pub(super) use checks::rate;
pub use secret::rotate;
pub use stats::{health, stats};
pub use trial::test;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    slug: Option<String>,
    provider: String,
    routing: Routing,
    config: Value,
    rate_limit: Option<RateLimit>,
    #[serde(default)]
    allowed_ips: Vec<String>,
    max_body_bytes: Option<i32>,
    response: Option<Response>,
    #[serde(default)]
    validate: Validation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default, deserialize_with = "given")]
    slug: Option<String>,
    #[serde(default, deserialize_with = "given")]
    routing: Option<Routing>,
    #[serde(default, deserialize_with = "given")]
    config: Option<Value>,
    #[serde(default, deserialize_with = "nullable")]
    rate_limit: Option<Option<RateLimit>>,
    #[serde(default, deserialize_with = "given")]
    allowed_ips: Option<Vec<String>>,
    #[serde(default, deserialize_with = "nullable")]
    max_body_bytes: Option<Option<i32>>,
    #[serde(default, deserialize_with = "nullable")]
    response: Option<Option<Response>>,
    #[serde(default, deserialize_with = "given")]
    validate: Option<Validation>,
}

/// At least one of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    #[serde(skip_serializing_if = "Option::is_none")]
    per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_address_per_second: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    status: u16,
    content_type: String,
    body: String,
}

#[derive(Serialize)]
struct View {
    id: SourceId,
    tenant_id: Option<TenantId>,
    slug: Option<String>,
    provider: &'static str,
    routing: Routing,
    config: Value,
    secrets: Vec<SecretView>,
    rate_limit: Option<Value>,
    allowed_ips: Vec<String>,
    max_body_bytes: Option<i32>,
    response: Option<Value>,
    validate: Validation,
    verifies: bool,
    url: String,
    created_at: Rfc3339,
    updated_at: Rfc3339,
}

#[derive(Serialize)]
struct SecretView {
    id: SecretId,
    fingerprint: String,
    matched: i64,
    last_matched_at: Option<Rfc3339>,
    created_at: Rfc3339,
    expires_at: Option<Rfc3339>,
}

impl View {
    fn of(source: Source, secrets: Vec<SecretInfo>, gateway_url: &str) -> Self {
        let url = format!("{}/webhooks/{}", gateway_url.trim_end_matches('/'), source.address());
        let verifies =
            Verifier::new(source.provider, &source.config, Vec::new()).map_or(true, |verifier| verifier.is_verifying());
        Self {
            id: source.id,
            tenant_id: source.tenant_id,
            slug: source.slug,
            provider: source.provider.as_str(),
            routing: source.routing,
            config: source.config,
            secrets: secrets
                .into_iter()
                .map(|secret| SecretView {
                    id: secret.id,
                    fingerprint: secret.fingerprint,
                    matched: secret.matched,
                    last_matched_at: secret.last_matched_at.map(Rfc3339),
                    created_at: Rfc3339(secret.created_at),
                    expires_at: secret.expires_at.map(Rfc3339),
                })
                .collect(),
            rate_limit: source.rate_limit,
            allowed_ips: source.allowed_ips,
            max_body_bytes: source.max_body_bytes,
            response: source.response,
            validate: source.validate,
            verifies,
            url,
            created_at: Rfc3339(source.created_at),
            updated_at: Rfc3339(source.updated_at),
        }
    }
}

pub async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let create: Create = body.parse(Shape::SourceCreate)?;
    let provider = provider(&create.provider)?;
    let once = Once::of(caller, &request, &body.0)?;
    let mut client = api.store.client().await?;
    let tenant_id = caller.scope(&client, params.tenant()?).await?;
    let (config, secrets) = configured(provider, create.config)?;
    let now = now();
    let token = create.slug.is_none().then(|| URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>()));
    let source = Source {
        id: SourceId::new(now, rand::random()),
        tenant_id,
        slug: create.slug,
        token,
        provider,
        routing: create.routing,
        config,
        rate_limit: create.rate_limit.map(json),
        allowed_ips: create.allowed_ips,
        max_body_bytes: create.max_body_bytes,
        response: create.response.map(json),
        validate: create.validate,
        created_at: now,
        updated_at: now,
    };
    check(&source)?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    routed(&transaction, &source).await?;
    sources::insert(&transaction, &source).await.map_err(taken)?;
    set_secrets(&api, &transaction, source.id, secrets).await?;
    let infos = infos(&transaction, source.id).await?;
    let view = View::of(source, infos, &api.gateway_url);
    let change = Change::new("create", "source", view.id, view.tenant_id).after(&view);
    change.record(&transaction, caller, &request).await?;
    once.created(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "limit", "cursor"])?;
    let page = params.page()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let rows = sources::list(&client, tenant, page).await?;
    let ids: Vec<SourceId> = rows.iter().map(|source| source.id).collect();
    let mut secrets: HashMap<SourceId, Vec<SecretInfo>> = HashMap::new();
    for (id, info) in sources::secret_infos(&client, &ids).await? {
        secrets.entry(id).or_default().push(info);
    }
    let mut secrets = |id| secrets.remove(&id).unwrap_or_default();
    let rows: Vec<_> = rows.into_iter().map(|source| (secrets(source.id), source)).collect();
    let list = List::of(
        rows,
        page.limit,
        |(_, source)| *source.id.as_uuid(),
        |(secrets, source)| View::of(source, secrets, &api.gateway_url),
    );
    Ok(HttpResponse::Ok().json(list))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let source = sources::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    let infos = infos(&client, id).await?;
    let updated_at = source.updated_at;
    Ok(version::shown(&View::of(source, infos, &api.gateway_url), updated_at))
}

pub async fn update(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let update: Update = body.parse(Shape::SourceUpdate)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let mut source = sources::lock(&transaction, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    version::check(&request, source.updated_at)?;
    let before = View::of(source.clone(), infos(&transaction, id).await?, &api.gateway_url);
    if let Some(slug) = update.slug {
        if source.slug.is_none() {
            return Err(ApiError::field("/slug", "cannot be given: the source has an opaque token in its URL"));
        }
        source.slug = Some(slug);
    }
    source.routing = update.routing.unwrap_or(source.routing);
    source.rate_limit = update.rate_limit.map_or(source.rate_limit, |limit| limit.map(json));
    source.allowed_ips = update.allowed_ips.unwrap_or(source.allowed_ips);
    source.max_body_bytes = update.max_body_bytes.unwrap_or(source.max_body_bytes);
    source.response = update.response.map_or(source.response, |response| response.map(json));
    source.validate = update.validate.unwrap_or(source.validate);
    if let Some(config) = update.config {
        let (config, secrets) = configured(source.provider, config)?;
        source.config = config;
        set_secrets(&api, &transaction, id, secrets).await?;
    }
    source.updated_at = now();
    check(&source)?;
    routed(&transaction, &source).await?;
    sources::update(&transaction, &source).await.map_err(taken)?;
    let infos = infos(&transaction, id).await?;
    let updated_at = source.updated_at;
    let view = View::of(source, infos, &api.gateway_url);
    let change = Change::new("update", "source", id, view.tenant_id).before(&before).after(&view);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(version::shown(&view, updated_at))
}

pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let source = sources::lock(&transaction, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    version::check(&request, source.updated_at)?;
    let before = View::of(source, infos(&transaction, id).await?, &api.gateway_url);
    sources::delete(&transaction, tenant, id).await?;
    let change = Change::new("delete", "source", id, before.tenant_id).before(&before);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}

fn provider(text: &str) -> ApiResult<Provider> {
    text.parse()
        .map_err(|error: posthorn_core::provider::UnknownProvider| ApiError::field("/provider", error.to_string()))
}

/// The public part of a configuration and its secrets, once it is known to be one.
fn configured(provider: Provider, config: Value) -> ApiResult<(Value, Vec<SecretString>)> {
    let fault = |error: ConfigError| ApiError::field(error.pointer, error.detail);
    let (config, secrets) = split_secrets(provider, config).map_err(fault)?;
    Verifier::new(provider, &config, secrets.clone()).map_err(fault)?;
    Ok((config, secrets))
}

/// A source leads to tenants that exist.
async fn routed(db: &impl GenericClient, source: &Source) -> ApiResult<()> {
    match &source.routing {
        Routing::Tenant { tenant_id } if tenants::find(db, *tenant_id).await?.is_none() => {
            Err(ApiError::not_found("tenant", tenant_id))
        }
        _ => Ok(()),
    }
}

async fn set_secrets(
    api: &Api,
    db: &impl GenericClient,
    source: SourceId,
    secrets: Vec<SecretString>,
) -> ApiResult<()> {
    let now = now();
    let named: Vec<_> = secrets.into_iter().map(|secret| (SecretId::new(now, rand::random()), secret)).collect();
    Ok(sources::set_secrets(db, api.store.sealer(), source, &named, now).await?)
}

async fn infos(db: &impl GenericClient, source: SourceId) -> ApiResult<Vec<SecretInfo>> {
    Ok(sources::secret_infos(db, &[source]).await?.into_iter().map(|(_, info)| info).collect())
}

fn json(value: impl Serialize) -> Value {
    // Structs of strings and numbers: there is nothing that cannot be written.
    serde_json::to_value(value).unwrap_or_default()
}

fn taken(error: Error) -> ApiError {
    match error {
        Error::Constraint { constraint } if constraint == sources::SLUG_UNIQUE => ApiError::Conflict {
            detail: "the slug is taken".to_owned(),
            errors: vec![FieldError { pointer: "/slug".to_owned(), detail: "is taken".to_owned() }],
        },
        other => other.into(),
    }
}
