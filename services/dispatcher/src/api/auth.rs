//! Who calls, and what they may.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use posthorn_core::id::{ApiKeyId, TenantId};
use posthorn_store::{GenericClient, api_keys, tenants};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::{Choice, ConstantTimeEq as _};
use tracing::Span;
use uuid::Uuid;

use super::{Api, now};
use crate::error::ApiError;

/// Who a request comes from, with a method that they may use.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    Operator,
    Tenant(TenantId, ApiKeyId),
}

/// A key that was looked up.
#[derive(Clone, Debug)]
pub struct KnownKey {
    pub id: ApiKeyId,
    pub tenant_id: TenantId,
    pub may_read: bool,
    pub may_write: bool,
}

impl Caller {
    /// Refuses tenants.
    pub fn operator(self) -> Result<(), ApiError> {
        match self {
            Self::Operator => Ok(()),
            Self::Tenant(..) => Err(ApiError::Forbidden("only the operator may do this")),
        }
    }

    /// Within which tenant the request is answered; `None` is the operator's view of everything.
    /// Another tenant than the caller's own, or one that does not exist, is not found.
    pub async fn scope(self, db: &impl GenericClient, named: Option<TenantId>) -> Result<Option<TenantId>, ApiError> {
        match (self, named) {
            (Self::Tenant(own, _), None) => Ok(Some(own)),
            (Self::Tenant(own, _), Some(named)) if own == named => Ok(Some(own)),
            (Self::Operator, None) => Ok(None),
            (Self::Operator, Some(named)) if tenants::find(db, named).await?.is_some() => Ok(Some(named)),
            (_, Some(named)) => Err(ApiError::not_found("tenant", named)),
        }
    }

    /// How the audit log names it.
    pub fn name(self) -> String {
        match self {
            Self::Operator => "operator".to_owned(),
            Self::Tenant(_, key) => key.to_string(),
        }
    }

    /// For whom idempotency keys are remembered.
    pub fn as_uuid(self) -> Uuid {
        match self {
            Self::Operator => Uuid::nil(),
            Self::Tenant(tenant, _) => *tenant.as_uuid(),
        }
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let api = request.app_data::<Data<Api>>().cloned();
        let token = bearer(request);
        let extensions = request.clone();
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        Box::pin(async move {
            // Without its state the service answers nothing at all.
            let api = api.ok_or(ApiError::NoRoute)?;
            let token = token.ok_or(ApiError::NoToken)?;
            if is_operators(&api, &token) {
                return Ok(Self::Operator);
            }
            let key = find_key(&api, &token).await?.ok_or(ApiError::BadToken)?;
            let left = api.rates.take(key.id, now());
            extensions.extensions_mut().insert(left);
            if !left.is_allowed {
                return Err(ApiError::TooManyRequests { retry_after_secs: left.reset_secs.max(1) });
            }
            Span::current().record("tenant.id", tracing::field::display(key.tenant_id));
            match (is_read, key.may_read, key.may_write) {
                (true, true, _) | (false, _, true) => Ok(Self::Tenant(key.tenant_id, key.id)),
                (true, ..) => Err(ApiError::Forbidden("the key has no scope `read`")),
                (false, ..) => Err(ApiError::Forbidden("the key has no scope `write`")),
            }
        })
    }
}

/// Whether it is one of the operator's. All are compared, so that the time tells nothing.
fn is_operators(api: &Api, token: &str) -> bool {
    let same = |known: &SecretString| known.expose_secret().as_bytes().ct_eq(token.as_bytes());
    api.operator_tokens.iter().fold(Choice::from(0), |found, known| found | same(known)).into()
}

/// The token of `Authorization: Bearer …`; the scheme in any case (RFC 9110 §11.1).
fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// Looks a key up by its hash. What was found is believed for a moment, so that a revoked key works
/// at most that much longer.
async fn find_key(api: &Data<Api>, token: &str) -> Result<Option<KnownKey>, ApiError> {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    if let Some(known) = api.known_keys.get(&hash).await {
        return Ok(known);
    }
    let client = api.store.client().await?;
    let found = api_keys::find_by_hash(&client, &hash, now()).await?;
    if let Some(key) = &found {
        api_keys::touch(&client, key.id, now()).await?;
    }
    let known = found.map(|key| KnownKey {
        id: key.id,
        tenant_id: key.tenant_id,
        may_read: key.scopes.iter().any(|scope| scope == "read"),
        may_write: key.scopes.iter().any(|scope| scope == "write"),
    });
    api.known_keys.insert(hash, known.clone()).await;
    Ok(known)
}
