//! `POST /v1/sources/{id}/rotate-secret`: a new secret, and the old ones a while longer.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::{SecretId, SourceId};
use posthorn_core::signature::{MAX_KEYS, Verifier, new_secret, takes_secrets};
use posthorn_core::time::later;
use posthorn_store::{Error, sources};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{View, infos};
use crate::api::audit_log::Change;
use crate::api::body::{Body, Checks, given};
use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now};
use crate::error::{ApiError, ApiResult};

/// Longest time for which an old secret stays good beside the new one, in seconds: a week.
pub const MAX_OVERLAP_SECONDS: u64 = 604_800;

/// How long it does unless the caller says otherwise: a day.
pub const DEFAULT_OVERLAP_SECONDS: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    #[serde(default, deserialize_with = "given")]
    secret: Option<String>,
    #[serde(default = "default_overlap")]
    overlap_seconds: u64,
}

fn default_overlap() -> u64 {
    DEFAULT_OVERLAP_SECONDS
}

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
    let Rotate { secret: given, overlap_seconds } = body.parse()?;
    let mut checks = Checks::default();
    checks.require(overlap_seconds <= MAX_OVERLAP_SECONDS, "/overlap_seconds", "from 0 to 604800");
    checks.finish()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let mut source = sources::lock(&transaction, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    if !takes_secrets(source.provider, &source.config) {
        let detail = "the source holds no secret: it is verified with what stands in its `config`, which PATCH changes";
        return Err(ApiError::conflict(detail));
    }
    let is_made_here = given.is_none();
    let secret: SecretString = match given {
        Some(secret) => secret.into(),
        None => new_secret(source.provider, &source.config, &rand::random())
            .ok_or_else(|| ApiError::field("/secret", "is required: it is the provider that gives it out"))?,
    };
    let fits = Verifier::new(source.provider, &source.config, vec![secret.clone()]);
    fits.map_err(|fault| ApiError::field("/secret", fault.detail))?;
    let known = infos(&transaction, id).await?;
    if known.iter().any(|info| info.fingerprint == sources::fingerprint(&secret)) {
        return Err(ApiError::field("/secret", "the source has it already"));
    }
    if overlap_seconds > 0 && known.len() >= MAX_KEYS {
        return Err(ApiError::conflict(format!("the source has {MAX_KEYS} secrets already; let some of them end")));
    }
    let now = now();
    let old_until = (overlap_seconds > 0).then(|| later(now, std::time::Duration::from_secs(overlap_seconds)));
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
