//! `POST /v1/sources/{id}/rotate-secret`: a new secret, and the old ones a while longer.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::{SecretId, SourceId};
use posthorn_core::signature::{MAX_KEYS, SECRET, Verifier, is_secret, new_secret, takes_secrets};
use posthorn_store::{Error, sources};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{View, infos};
use crate::api::audit_log::Change;
use crate::api::body::Body;
use crate::api::params::{Params, path_id};
use crate::api::rotation::Rotation;
use crate::api::{Api, Caller, now};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct Rotated {
    #[serde(flatten)]
    source: View,
    /// Only where it was made here, and only now.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

pub async fn rotate(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let rotation = Rotation::parse(&body)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let mut source = sources::lock(&transaction, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    if !takes_secrets(source.provider, &source.config) {
        let detail = "the source holds no secret; it is verified with its `config`, which PATCH changes";
        return Err(ApiError::conflict(detail));
    }
    let now = now();
    let old_until = rotation.old_until(now);
    let is_made_here = rotation.secret.is_none();
    let secret: SecretString = match rotation.secret {
        Some(secret) if is_secret(&secret) => secret.into(),
        Some(_) => return Err(ApiError::field("/secret", SECRET)),
        None => new_secret(source.provider, &source.config, &rand::random()).ok_or_else(|| {
            ApiError::field("/secret", "is required: the provider gives it out, and Posthorn cannot make one")
        })?,
    };
    let fits = Verifier::new(source.provider, &source.config, vec![secret.clone()]);
    fits.map_err(|fault| ApiError::field("/secret", fault.detail))?;
    let known = infos(&transaction, id).await?;
    if known.iter().any(|info| info.fingerprint == sources::fingerprint(&secret)) {
        return Err(ApiError::field("/secret", "is a secret that the source has already"));
    }
    if old_until.is_some() && known.len() >= MAX_KEYS {
        return Err(ApiError::conflict(format!(
            "the source has {MAX_KEYS} secrets, the most that it may have; end some of them first"
        )));
    }
    let new = (SecretId::new(now, rand::random()), &secret);
    sources::rotate(&transaction, api.store.sealer(), id, new, old_until, now).await?;
    source.updated_at = now;
    sources::update(&transaction, &source).await?;
    let infos = infos(&transaction, id).await?;
    let source = View::of(source, infos, &api.gateway_url);
    let change = Change::new("rotate_secret", "source", id, source.tenant_id).after(&source);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    let secret = is_made_here.then(|| secret.expose_secret().to_owned());
    Ok(HttpResponse::Ok().json(Rotated { source, secret }))
}
