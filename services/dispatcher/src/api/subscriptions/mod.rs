//! `/v1/subscriptions`: what tenants ask for.

mod checks;
mod fields;
mod headers;
mod recover;
mod secret;
mod stats;
mod tls;
mod trial;
mod view;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::breaker::Breaker;
use posthorn_core::id::{SecretId, SubscriptionId};
use posthorn_core::signature::standard::{SigningKey, SigningSecret};
use posthorn_core::subscription::{SignatureScheme, State};
use posthorn_store::subscriptions::{self, Headers, Runtime, Subscription, Tls};
use posthorn_store::{Error, Transaction, health};
use secrecy::ExposeSecret as _;

use super::audit_log::Change;
use super::body::{Body, Checks};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now, version};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

use checks::check;
pub use checks::is_source_name;
use fields::{Create, Update, Wanted, apply};
pub use recover::recover;
pub use secret::{public_key, rotate};
pub use stats::stats;
pub use trial::test;
use view::View;

pub async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let create: Create = body.parse(Shape::SubscriptionCreate)?;
    let once = Once::of(caller, &request, &body.0)?;
    let mut client = api.store.client().await?;
    let named = match (params.tenant()?, create.tenant_id) {
        (Some(one), Some(other)) if one != other => {
            return Err(ApiError::field("/tenant_id", "differs from the `tenant_id` in the query"));
        }
        (in_query, in_body) => in_query.or(in_body),
    };
    let tenant_id = caller.scope(&client, named).await?;
    let tenant_id = tenant_id.ok_or_else(|| {
        ApiError::field("/tenant_id", "is required: the operator names the tenant here or in the query")
    })?;
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
        headers: Headers::default(),
        tls: Tls::default(),
        payload_format: create.payload_format,
        signatures: create.signatures,
        created_at: now,
        updated_at: now,
    };
    let mut checks = Checks::default();
    let (sealer, id) = (api.store.sealer(), subscription.id);
    subscription.headers = headers::sealed(create.headers, &Headers::default(), sealer, id, &mut checks);
    check(checks, &api, &subscription, create.tls.as_ref())?;
    if let Some(tls) = create.tls {
        subscription.tls = tls.sealed(sealer, id);
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
    let mut update: Update = body.parse(Shape::SubscriptionUpdate)?;
    let (tls, headers) = (update.tls.take(), update.headers.take());
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let (mut subscription, runtime) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    version::check(&request, subscription.updated_at)?;
    let before = View::of(&api, (subscription.clone(), runtime));
    apply(&mut subscription, update);
    let mut checks = Checks::default();
    if let Some(given) = headers {
        subscription.headers = headers::sealed(given, &subscription.headers, api.store.sealer(), id, &mut checks);
    }
    check(checks, &api, &subscription, tls.as_ref().and_then(Option::as_ref))?;
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
