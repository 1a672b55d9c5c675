//! `/v1/subscriptions`: what tenants ask for.

mod checks;
mod recover;
mod secret;
mod stats;
mod tls;
mod trial;

use std::collections::BTreeMap;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::breaker::{self, Breaker};
use posthorn_core::id::{SecretId, SubscriptionId, TenantId};
use posthorn_core::retry::RetryPolicy;
use posthorn_core::signature::standard::{SigningKey, SigningSecret};
use posthorn_core::subscription::{PayloadFormat, RateLimit, SignatureScheme, State};
use posthorn_core::time::Rfc3339;
use posthorn_store::subscriptions::{self, Runtime, Subscription, Tls};
use posthorn_store::{Error, Transaction, health};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::audit_log::Change;
use super::body::{Body, given, nullable};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now, version};
use crate::error::{ApiError, ApiResult};

use checks::check;
pub use checks::is_source_name;
pub use recover::recover;
pub use secret::{public_key, rotate};
pub use stats::stats;
use tls::TlsView;
pub use trial::test;

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
    ordered: bool,
    #[serde(default = "default_ordered_max_block_seconds")]
    ordered_max_block_seconds: i32,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    tls: Option<tls::Given>,
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

fn default_ordered_max_block_seconds() -> i32 {
    3600
}

fn default_payload_format() -> PayloadFormat {
    PayloadFormat::Standard
}

fn default_signatures() -> Vec<SignatureScheme> {
    vec![SignatureScheme::Standard]
}

#[derive(Default, Deserialize)]
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
    ordered: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    ordered_max_block_seconds: Option<i32>,
    #[serde(default, deserialize_with = "given")]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "nullable")]
    tls: Option<Option<tls::Given>>,
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
    ordered: bool,
    ordered_max_block_seconds: i32,
    headers: BTreeMap<String, String>,
    tls: Option<TlsView>,
    payload_format: PayloadFormat,
    signatures: Vec<SignatureScheme>,
    stats: StatsView,
    breaker: BreakerView,
    failing: Option<FailingView>,
    recover_since: Option<Rfc3339>,
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

#[derive(Serialize)]
struct BreakerView {
    state: breaker::State,
    until: Option<Rfc3339>,
}

impl From<Breaker> for BreakerView {
    fn from(breaker: Breaker) -> Self {
        Self { state: breaker.state, until: breaker.until.map(Rfc3339) }
    }
}

/// A subscription without a success for some time.
#[derive(Serialize)]
struct FailingView {
    since: Rfc3339,
    warned_percent: u8,
    disables_at: Rfc3339,
}

impl View {
    fn of(api: &Api, (subscription, runtime): (Subscription, Runtime)) -> Self {
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
            ordered: subscription.ordered,
            ordered_max_block_seconds: subscription.ordered_max_block_seconds,
            headers: subscription.headers,
            tls: TlsView::of(&subscription.tls),
            payload_format: subscription.payload_format,
            signatures: subscription.signatures,
            stats: StatsView {
                delivered: runtime.delivered,
                failed: runtime.failed,
                last_triggered_at: runtime.last_triggered_at.map(Rfc3339),
            },
            breaker: BreakerView::from(runtime.breaker),
            failing: runtime.failing.map(|failing| FailingView {
                since: Rfc3339(failing.since),
                warned_percent: failing.warned_percent,
                disables_at: Rfc3339(failing.disables_at(api.disable_after)),
            }),
            recover_since: runtime.recover_since.map(Rfc3339),
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
    let mut subscription = Subscription {
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
        ordered: create.ordered,
        ordered_max_block_seconds: create.ordered_max_block_seconds,
        headers: create.headers,
        tls: Tls::default(),
        payload_format: create.payload_format,
        signatures: create.signatures,
        created_at: now,
        updated_at: now,
    };
    check(&api, &subscription, create.tls.as_ref())?;
    if let Some(tls) = create.tls {
        subscription.tls = tls.sealed(api.store.sealer(), subscription.id);
    }
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    subscriptions::insert(&transaction, &subscription).await?;
    let secret = secret.reveal();
    let secret_id = SecretId::new(now, rand::random());
    subscriptions::add_secret(&transaction, api.store.sealer(), secret_id, subscription.id, &secret, now).await?;
    ensure_key(&api, &transaction, &subscription).await?;
    let view = View::of(&api, (subscription, Runtime::default()));
    let change = Change::new("create", "subscription", view.id, Some(tenant_id)).after(&view);
    change.record(&transaction, caller, &request).await?;
    let view = View { secret: Some(secret.expose_secret().to_owned()), ..view };
    once.created(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "limit", "cursor"])?;
    let page = params.page()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let rows = subscriptions::list(&client, tenant, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |(row, _)| *row.id.as_uuid(), |found| View::of(&api, found))))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = subscriptions::find(&client, tenant, id).await?;
    let found = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let updated_at = found.0.updated_at;
    Ok(version::shown(&View::of(&api, found), updated_at))
}

pub async fn update(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let mut update: Update = body.parse()?;
    let tls = update.tls.take();
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let (mut subscription, runtime) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    version::check(&request, subscription.updated_at)?;
    let before = View::of(&api, (subscription.clone(), runtime));
    apply(&mut subscription, update);
    check(&api, &subscription, tls.as_ref().and_then(Option::as_ref))?;
    if let Some(tls) = tls {
        subscription.tls = tls.map(|tls| tls.sealed(api.store.sealer(), id)).unwrap_or_default();
    }
    subscriptions::update(&transaction, &subscription).await?;
    let runtime = heal(&transaction, &before, &subscription, runtime).await?;
    ensure_key(&api, &transaction, &subscription).await?;
    let updated_at = subscription.updated_at;
    let view = View::of(&api, (subscription, runtime));
    let change = Change::new("update", "subscription", id, Some(view.tenant_id)).before(&before).after(&view);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(version::shown(&view, updated_at))
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
    set(&mut subscription.ordered, update.ordered);
    set(&mut subscription.ordered_max_block_seconds, update.ordered_max_block_seconds);
    set(&mut subscription.headers, update.headers);
    set(&mut subscription.payload_format, update.payload_format);
    set(&mut subscription.signatures, update.signatures);
    match state {
        None => {}
        Some(wanted) => {
            subscription.state = match wanted {
                Wanted::Paused => State::Paused,
                Wanted::Active => State::Active,
            };
            subscription.disabled_reason = None;
        }
    }
    subscription.updated_at = now();
}

/// Whoever makes a subscription active again begins anew with its endpoint; a new endpoint is tried at once.
async fn heal(
    transaction: &Transaction<'_>,
    before: &View,
    subscription: &Subscription,
    runtime: Runtime,
) -> ApiResult<Runtime> {
    if before.state == State::Disabled && subscription.state != State::Disabled {
        health::begin_anew(transaction, subscription.id, subscription.updated_at).await?;
        return Ok(Runtime { breaker: Breaker::CLOSED, failing: None, ..runtime });
    }
    if before.url != subscription.url {
        health::probe_now(transaction, subscription.id, subscription.updated_at).await?;
    }
    Ok(runtime)
}

/// Holds what comes until somebody resumes it.
pub async fn pause(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    turn(&api, caller, &id, &request, &body, Wanted::Paused).await
}

/// Goes on with what was held, at the subscription's rate. A disabled one begins anew.
pub async fn resume(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    turn(&api, caller, &id, &request, &body, Wanted::Active).await
}

async fn turn(api: &Api, caller: Caller, id: &str, request: &HttpRequest, body: &Body, state: Wanted) -> ApiResult {
    let params = Params::of(request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let (mut subscription, runtime) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let before = View::of(api, (subscription.clone(), runtime));
    apply(&mut subscription, Update { state: Some(state), ..Update::default() });
    subscriptions::update(&transaction, &subscription).await?;
    let runtime = heal(&transaction, &before, &subscription, runtime).await?;
    let view = View::of(api, (subscription, runtime));
    let action = if matches!(state, Wanted::Paused) { "pause" } else { "resume" };
    let change = Change::new(action, "subscription", id, Some(view.tenant_id)).before(&before).after(&view);
    change.record(&transaction, caller, request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(view))
}

/// A subscription that is signed with Ed25519 has a key for it, made when it is first asked for.
async fn ensure_key(api: &Api, transaction: &Transaction<'_>, subscription: &Subscription) -> ApiResult<()> {
    if !subscription.signatures.contains(&SignatureScheme::StandardEd25519) {
        return Ok(());
    }
    let known = subscriptions::secrets(transaction, api.store.sealer(), Some(subscription.id)).await?;
    let known: Vec<_> = known.into_iter().map(|(_, secret, _)| secret).collect();
    if posthorn_core::signing::keys_of(&known).next().is_some() {
        return Ok(());
    }
    add_key(api, transaction, subscription.id).await
}

async fn add_key(api: &Api, transaction: &Transaction<'_>, id: SubscriptionId) -> ApiResult<()> {
    let now = now();
    let key = SigningKey::from_seed(&rand::random::<[u8; 32]>());
    let key = key.map_err(|error| ApiError::field("/signatures", error.to_string()))?.reveal();
    let key_id = SecretId::new(now, rand::random());
    Ok(subscriptions::add_secret(transaction, api.store.sealer(), key_id, id, &key, now).await?)
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let found = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    version::check(&request, found.0.updated_at)?;
    let before = View::of(&api, found);
    subscriptions::delete(&transaction, tenant, id, now()).await?;
    let change = Change::new("delete", "subscription", id, Some(before.tenant_id)).before(&before);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}
