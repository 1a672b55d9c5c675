//! `/v1/sources`: the doors through which providers come.

use std::collections::HashMap;
use std::net::IpAddr;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_core::signature::{ConfigError, Verifier, split_secrets};
use posthorn_core::subscription::RateLimit;
use posthorn_core::time::Rfc3339;
use posthorn_process::problem::FieldError;
use posthorn_store::sources::{self, SecretInfo, Source};
use posthorn_store::{Error, GenericClient, tenants};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Body, Checks, given, nullable};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

/// Largest body that a source may ask for; the gateway may allow less.
const MAX_BODY_BYTES: i32 = 26_214_400;

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
    validate: &'static str,
    verifies: bool,
    url: String,
    created_at: Rfc3339,
    updated_at: Rfc3339,
}

#[derive(Serialize)]
struct SecretView {
    id: SecretId,
    fingerprint: String,
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
                    created_at: Rfc3339(secret.created_at),
                    expires_at: secret.expires_at.map(Rfc3339),
                })
                .collect(),
            rate_limit: source.rate_limit,
            allowed_ips: source.allowed_ips,
            max_body_bytes: source.max_body_bytes,
            response: source.response,
            validate: "off",
            verifies,
            url,
            created_at: Rfc3339(source.created_at),
            updated_at: Rfc3339(source.updated_at),
        }
    }
}

pub async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let create: Create = body.parse()?;
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
    Ok(HttpResponse::Ok().json(View::of(source, infos, &api.gateway_url)))
}

pub async fn update(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let update: Update = body.parse()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let mut source = sources::lock(&transaction, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    if let Some(slug) = update.slug {
        if source.slug.is_none() {
            return Err(ApiError::field("/slug", "the source has an opaque token for its URL"));
        }
        source.slug = Some(slug);
    }
    source.routing = update.routing.unwrap_or(source.routing);
    source.rate_limit = update.rate_limit.map_or(source.rate_limit, |limit| limit.map(json));
    source.allowed_ips = update.allowed_ips.unwrap_or(source.allowed_ips);
    source.max_body_bytes = update.max_body_bytes.unwrap_or(source.max_body_bytes);
    source.response = update.response.map_or(source.response, |response| response.map(json));
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
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(View::of(source, infos, &api.gateway_url)))
}

pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    if !sources::delete(&client, tenant, id).await? {
        return Err(ApiError::not_found("source", id));
    }
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

fn check(source: &Source) -> ApiResult<()> {
    let mut checks = Checks::default();
    if let Some(slug) = &source.slug {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = slug.bytes().all(|b| plain(b) || b == b'_' || b == b'-');
        let ends = slug.bytes().next().is_some_and(plain) && slug.bytes().last().is_some_and(plain);
        let detail = "1 to 64 of `a-z`, `0-9`, `_` and `-`, with a letter or digit at both ends";
        checks.require(inner && ends && slug.len() <= 64, "/slug", detail);
        checks.require(source.tenant_id.is_none(), "/slug", "a tenant's source has an opaque token, no slug");
    }
    match &source.routing {
        Routing::Tenant { tenant_id } => {
            let own = source.tenant_id.is_none_or(|owner| owner == *tenant_id);
            checks.require(own, "/routing/tenant_id", "a tenant's source leads to that tenant");
        }
        _ if source.tenant_id.is_some() => {
            checks.fail("/routing/kind", "a tenant's source leads to that tenant: `tenant`");
        }
        Routing::Pointer { pointer } => {
            let tokens_hold = pointer.split('/').skip(1).all(|token| {
                let mut rest = token;
                while let Some(tilde) = rest.find('~') {
                    rest = &rest[tilde + 1..];
                    if !rest.starts_with(['0', '1']) {
                        return false;
                    }
                }
                true
            });
            let holds = pointer.starts_with('/') && pointer.len() <= 256 && !pointer.contains('\0') && tokens_hold;
            checks.require(holds, "/routing/pointer", "a JSON Pointer (RFC 6901), such as `/account`");
        }
        Routing::Header { name } => {
            let detail = "only for the provider `internal`: nobody else's signature covers headers";
            checks.require(source.provider == Provider::Internal, "/routing/kind", detail);
            let holds = (1..=100).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            checks.require(holds, "/routing/name", "a header's name of up to 100 characters");
        }
        Routing::Broadcast => {}
    }
    rate(&mut checks, source.rate_limit.as_ref().and_then(|limit| limit["per_second"].as_f64()));
    checks.require(source.allowed_ips.len() <= 100, "/allowed_ips", "at most 100 networks");
    for (index, net) in source.allowed_ips.iter().enumerate() {
        let is_net = net.parse::<IpNet>().is_ok() || net.parse::<IpAddr>().is_ok();
        checks.require(is_net, &format!("/allowed_ips/{index}"), "an address, or a network in CIDR form");
    }
    let bytes = source.max_body_bytes.unwrap_or(1);
    checks.require((1..=MAX_BODY_BYTES).contains(&bytes), "/max_body_bytes", "from 1 to 26214400 bytes");
    if let Some(Ok(response)) = source.response.clone().map(serde_json::from_value::<Response>) {
        checks.require((200..=299).contains(&response.status), "/response/status", "from 200 to 299");
        checks.require(
            is_media_type(&response.content_type),
            "/response/content_type",
            "a media type of up to 100 characters, such as `text/xml`",
        );
        let fits = response.body.chars().count() <= 10_000 && !response.body.contains('\0');
        checks.require(fits, "/response/body", "at most 10000 characters, no NUL");
    }
    checks.finish()
}

/// `per_second` of a rate limit.
pub(super) fn rate(checks: &mut Checks, per_second: Option<f64>) {
    let holds = per_second.is_none_or(|rate| (0.1..=100_000.0).contains(&rate));
    checks.require(holds, "/rate_limit/per_second", "from 0.1 to 100000");
}

/// `type/subtype`, perhaps with parameters (RFC 9110 §8.3.1).
fn is_media_type(text: &str) -> bool {
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let mut parts = text.split(';');
    let essence = parts.next().and_then(|essence| essence.split_once('/'));
    text.len() <= 100
        && essence.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && parts.all(|part| part.trim_start().split_once('=').is_some_and(|(name, value)| token(name) && token(value)))
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
