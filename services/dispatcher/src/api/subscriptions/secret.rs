//! `POST /v1/subscriptions/{id}/rotate-secret`, and the public keys that go with Ed25519.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::{SecretId, SubscriptionId};
use posthorn_core::signature::standard::{SigningKey, SigningSecret};
use posthorn_core::subscription::SignatureScheme;
use posthorn_core::time::Rfc3339;
use posthorn_store::{Error, subscriptions};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::add_key;
use super::view::View;
use crate::api::audit_log::Change;
use crate::api::body::Body;
use crate::api::params::{Params, path_id};
use crate::api::rotation::Rotation;
use crate::api::{Api, Caller, now};
use crate::error::{ApiError, ApiResult};

/// Most secrets and keys that sign at the same time.
const MAX_SECRETS: usize = 10;

/// A new secret, shown once; those before it sign as well for the overlap. With Ed25519 there is a new
/// key as well.
pub async fn rotate(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let rotation = Rotation::parse(&body)?;
    let secret = match &rotation.secret {
        None => SigningSecret::from_bytes(&rand::random::<[u8; 24]>()),
        Some(text) => SigningSecret::parse(text),
    };
    let secret = secret.map_err(|error| ApiError::field("/secret", error.to_string()))?.reveal();
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::lock(&transaction, tenant, id).await?;
    let (subscription, counts) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let known = subscriptions::secrets(&transaction, api.store.sealer(), Some(id)).await?;
    if known.iter().any(|(_, known, _)| known.expose_secret() == secret.expose_secret()) {
        return Err(ApiError::field("/secret", "is a secret that the subscription has already"));
    }
    let now = now();
    let old_until = rotation.old_until(now);
    if old_until.is_some() && known.len() >= MAX_SECRETS {
        return Err(ApiError::conflict(format!(
            "the subscription has {MAX_SECRETS} secrets, the most that it may have; end some of them first"
        )));
    }
    subscriptions::retire_secrets(&transaction, id, old_until).await?;
    let secret_id = SecretId::new(now, rand::random());
    subscriptions::add_secret(&transaction, api.store.sealer(), secret_id, id, &secret, now).await?;
    if subscription.signatures.contains(&SignatureScheme::StandardEd25519) {
        add_key(&api, &transaction, id).await?;
    }
    subscriptions::touch(&transaction, id, now).await?;
    let view = View::of(&api, (subscription, counts));
    let change = Change::new("rotate_secret", "subscription", id, Some(view.tenant_id)).after(&view);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(View { secret: Some(secret.expose_secret().to_owned()), ..view }))
}

#[derive(Serialize)]
struct PublicKeys {
    /// The newest.
    public_key: String,
    /// All that sign now, newest first.
    public_keys: Vec<PublicKey>,
}

#[derive(Serialize)]
struct PublicKey {
    public_key: String,
    expires_at: Option<Rfc3339>,
}

pub async fn public_key(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    subscriptions::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let known = subscriptions::secrets(&client, api.store.sealer(), Some(id)).await?;
    let public_keys: Vec<PublicKey> = known
        .iter()
        .filter_map(|(_, secret, expires_at)| {
            let key = SigningKey::parse(secret.expose_secret()).ok()?;
            Some(PublicKey { public_key: key.public_key(), expires_at: expires_at.map(Rfc3339) })
        })
        .collect();
    let newest = public_keys.first().map(|key| key.public_key.clone());
    let public_key =
        newest.ok_or_else(|| ApiError::conflict("the subscription is not signed with `standard_ed25519`"))?;
    Ok(HttpResponse::Ok().json(PublicKeys { public_key, public_keys }))
}
