//! `/v1/subscriptions`: what tenants ask for.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::endpoint::{self, EndpointUrl};
use posthorn_core::event_type::Pattern;
use posthorn_core::id::{SecretId, SubscriptionId, TenantId};
use posthorn_core::retry::RetryPolicy;
use posthorn_core::signature::standard::SigningSecret;
use posthorn_core::subscription::{PayloadFormat, RateLimit, SignatureScheme, State};
use posthorn_core::time::Rfc3339;
use posthorn_store::Error;
use posthorn_store::subscriptions::{self, Counts, Subscription};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::body::{Body, Checks, given, nullable};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::sources::rate;
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    #[serde(default, deserialize_with = "given")]
    tenant_id: Option<TenantId>,
    name: Option<String>,
    description: Option<String>,
    url: String,
    event_types: Vec<String>,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    retry_policy: RetryPolicy,
    #[serde(default = "default_timeout_seconds")]
    timeout_seconds: i32,
    rate_limit: Option<RateLimit>,
    #[serde(default = "default_max_in_flight")]
    max_in_flight: i32,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "default_payload_format")]
    payload_format: PayloadFormat,
    #[serde(default = "default_signatures")]
    signatures: Vec<SignatureScheme>,
    #[serde(default, deserialize_with = "given")]
    secret: Option<String>,
}

fn default_timeout_seconds() -> i32 {
    10
}

fn default_max_in_flight() -> i32 {
    8
}

fn default_payload_format() -> PayloadFormat {
    PayloadFormat::Standard
}

fn default_signatures() -> Vec<SignatureScheme> {
    vec![SignatureScheme::Standard]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(default, deserialize_with = "nullable")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    event_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    sources: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    state: Option<Wanted>,
    #[serde(default, deserialize_with = "given")]
    retry_policy: Option<RetryPolicy>,
    #[serde(default, deserialize_with = "given")]
    timeout_seconds: Option<i32>,
    #[serde(default, deserialize_with = "nullable")]
    rate_limit: Option<Option<RateLimit>>,
    #[serde(default, deserialize_with = "given")]
    max_in_flight: Option<i32>,
    #[serde(default, deserialize_with = "given")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "given")]
    payload_format: Option<PayloadFormat>,
    #[serde(default, deserialize_with = "given")]
    signatures: Option<Vec<SignatureScheme>>,
}

/// The states that a person can ask for.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Active,
    Paused,
}

#[derive(Serialize)]
struct View {
    id: SubscriptionId,
    tenant_id: TenantId,
    name: Option<String>,
    description: Option<String>,
    url: String,
    event_types: Vec<String>,
    sources: Vec<String>,
    state: State,
    disabled_reason: Option<String>,
    retry_policy: RetryPolicy,
    timeout_seconds: i32,
    rate_limit: Option<RateLimit>,
    max_in_flight: i32,
    headers: BTreeMap<String, String>,
    payload_format: PayloadFormat,
    signatures: Vec<SignatureScheme>,
    stats: StatsView,
    created_at: Rfc3339,
    updated_at: Rfc3339,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

#[derive(Serialize)]
struct StatsView {
    delivered: i64,
    failed: i64,
    last_triggered_at: Option<Rfc3339>,
}

impl View {
    fn of((subscription, counts): (Subscription, Counts)) -> Self {
        Self {
            id: subscription.id,
            tenant_id: subscription.tenant_id,
            name: subscription.name,
            description: subscription.description,
            url: subscription.url,
            event_types: subscription.event_types,
            sources: subscription.sources,
            state: subscription.state,
            disabled_reason: subscription.disabled_reason,
            retry_policy: subscription.retry_policy,
            timeout_seconds: subscription.timeout_seconds,
            rate_limit: subscription.rate_limit,
            max_in_flight: subscription.max_in_flight,
            headers: subscription.headers,
            payload_format: subscription.payload_format,
            signatures: subscription.signatures,
            stats: StatsView {
                delivered: counts.delivered,
                failed: counts.failed,
                last_triggered_at: counts.last_triggered_at.map(Rfc3339),
            },
            created_at: Rfc3339(subscription.created_at),
            updated_at: Rfc3339(subscription.updated_at),
            secret: None,
        }
    }
}

pub async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let create: Create = body.parse()?;
    let once = Once::of(caller, &request, &body.0)?;
    let mut client = api.store.client().await?;
    let named = match (params.tenant()?, create.tenant_id) {
        (Some(one), Some(other)) if one != other => {
            return Err(ApiError::field("/tenant_id", "the query names another tenant"));
        }
        (in_query, in_body) => in_query.or(in_body),
    };
    let tenant_id = caller.scope(&client, named).await?;
    let tenant_id = tenant_id.ok_or_else(|| ApiError::field("/tenant_id", "missing field `tenant_id`"))?;
    let secret = match &create.secret {
        None => SigningSecret::from_bytes(&rand::random::<[u8; 24]>()),
        Some(text) => SigningSecret::parse(text),
    };
    let secret = secret.map_err(|error| ApiError::field("/secret", error.to_string()))?;
    let now = now();
    let subscription = Subscription {
        id: SubscriptionId::new(now, rand::random()),
        tenant_id,
        name: create.name,
        description: create.description,
        url: create.url,
        event_types: create.event_types,
        sources: create.sources,
        state: State::Active,
        disabled_reason: None,
        retry_policy: create.retry_policy,
        timeout_seconds: create.timeout_seconds,
        rate_limit: create.rate_limit,
        max_in_flight: create.max_in_flight,
        headers: create.headers,
        payload_format: create.payload_format,
        signatures: create.signatures,
        created_at: now,
        updated_at: now,
    };
    check(&api, &subscription)?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    subscriptions::insert(&transaction, &subscription).await?;
    let secret = secret.reveal();
    let secret_id = SecretId::new(now, rand::random());
    subscriptions::add_secret(&transaction, api.store.sealer(), secret_id, subscription.id, &secret, now).await?;
    let view = View { secret: Some(secret.expose_secret().to_owned()), ..View::of((subscription, Counts::default())) };
    once.created(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "limit", "cursor"])?;
    let page = params.page()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let rows = subscriptions::list(&client, tenant, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |(row, _)| *row.id.as_uuid(), View::of)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = subscriptions::find(&client, tenant, id).await?;
    Ok(HttpResponse::Ok().json(View::of(found.ok_or_else(|| ApiError::not_found("subscription", id))?)))
}

pub async fn update(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let update: Update = body.parse()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let (mut subscription, counts) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    apply(&mut subscription, update);
    check(&api, &subscription)?;
    subscriptions::update(&transaction, &subscription).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(View::of((subscription, counts))))
}

fn apply(subscription: &mut Subscription, update: Update) {
    let Update { name, description, url, event_types, sources, state, retry_policy, .. } = update;
    set(&mut subscription.name, name);
    set(&mut subscription.description, description);
    set(&mut subscription.url, url);
    set(&mut subscription.event_types, event_types);
    set(&mut subscription.sources, sources);
    set(&mut subscription.retry_policy, retry_policy);
    set(&mut subscription.timeout_seconds, update.timeout_seconds);
    set(&mut subscription.rate_limit, update.rate_limit);
    set(&mut subscription.max_in_flight, update.max_in_flight);
    set(&mut subscription.headers, update.headers);
    set(&mut subscription.payload_format, update.payload_format);
    set(&mut subscription.signatures, update.signatures);
    match state {
        None => {}
        Some(Wanted::Paused) => subscription.state = State::Paused,
        Some(Wanted::Active) => {
            subscription.state = State::Active;
            subscription.disabled_reason = None;
        }
    }
    subscription.updated_at = now();
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    if !subscriptions::delete(&client, tenant, id, now()).await? {
        return Err(ApiError::not_found("subscription", id));
    }
    Ok(HttpResponse::NoContent().finish())
}

fn check(api: &Api, subscription: &Subscription) -> ApiResult<()> {
    let mut checks = Checks::default();
    if let Some(name) = &subscription.name {
        checks.name("/name", name);
    }
    if let Some(text) = &subscription.description {
        let fits = text.chars().count() <= 2000 && !text.contains('\0');
        checks.require(fits, "/description", "at most 2000 characters, no NUL");
    }
    if let Err(error) = EndpointUrl::parse(&subscription.url, &api.egress) {
        checks.fail("/url", url_detail(&error));
    }
    checks.require((1..=100).contains(&subscription.event_types.len()), "/event_types", "from 1 to 100 patterns");
    for (index, pattern) in subscription.event_types.iter().enumerate() {
        if let Err(error) = Pattern::parse(pattern) {
            checks.fail(format!("/event_types/{index}"), error.to_string());
        }
    }
    checks.require(subscription.sources.len() <= 100, "/sources", "at most 100 sources");
    for (index, source) in subscription.sources.iter().enumerate() {
        checks.require(is_source_name(source), &format!("/sources/{index}"), "a source's slug or id");
    }
    if let Err(error) = subscription.retry_policy.check() {
        checks.fail(format!("/retry_policy{}", error.pointer), error.detail);
    }
    checks.require((1..=30).contains(&subscription.timeout_seconds), "/timeout_seconds", "from 1 to 30");
    checks.require((1..=100).contains(&subscription.max_in_flight), "/max_in_flight", "from 1 to 100");
    rate(&mut checks, "/rate_limit/per_second", subscription.rate_limit.map(|limit| limit.per_second));
    headers(&mut checks, &subscription.headers);
    signatures(&mut checks, &subscription.signatures);
    checks.finish()
}

/// What a slug or an id is written with.
pub fn is_source_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn url_detail(error: &endpoint::Error) -> String {
    match error {
        endpoint::Error::Address(refused) => format!("{error}: {refused}"),
        _ => error.to_string(),
    }
}

fn headers(checks: &mut Checks, headers: &BTreeMap<String, String>) {
    checks.require(headers.len() <= 20, "/headers", "at most 20 headers");
    let mut seen = BTreeSet::new();
    for (name, value) in headers {
        let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        header_name(checks, &pointer, name);
        checks.require(seen.insert(name.to_ascii_lowercase()), &pointer, "another header differs in case only");
        let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b));
        let holds = (1..=1024).contains(&value.len()) && printable && value.trim() == value;
        checks.require(holds, &pointer, "from 1 to 1024 printable ASCII characters, no space at the ends");
    }
}

fn header_name(checks: &mut Checks, pointer: &str, name: &str) {
    let is_token =
        (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    checks.require(is_token, pointer, "a header's name of up to 100 characters");
    checks.require(!is_reserved(name), pointer, "the header is Posthorn's to set");
}

/// What Posthorn, HTTP or a proxy sets.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 16] = [
        "host",
        "user-agent",
        "traceparent",
        "tracestate",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "accept-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "http2-settings",
    ];
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-") || name.starts_with("proxy-") || RESERVED.contains(&name.as_str())
}

fn signatures(checks: &mut Checks, signatures: &[SignatureScheme]) {
    checks.require((1..=5).contains(&signatures.len()), "/signatures", "from 1 to 5 schemes");
    let mut seen = BTreeSet::new();
    for (index, scheme) in signatures.iter().enumerate() {
        let header = match scheme {
            SignatureScheme::Standard => "webhook-signature".to_owned(),
            SignatureScheme::HmacSha256 { header, prefix, .. } => {
                header_name(checks, &format!("/signatures/{index}/header"), header);
                let plain = prefix.len() <= 32 && prefix.bytes().all(|b| b.is_ascii_graphic());
                let detail = "at most 32 printable ASCII characters";
                checks.require(plain, &format!("/signatures/{index}/prefix"), detail);
                header.to_ascii_lowercase()
            }
        };
        checks.require(seen.insert(header), &format!("/signatures/{index}"), "another scheme writes the same header");
    }
}
