//! What the gateway answers when it does not accept.

use std::sync::Arc;

use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use posthorn_core::signature::{Refusal, RefusalClass};
use posthorn_process::problem::Problem;
use posthorn_store::batcher;

use crate::keys::FetchError;

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("no source has this address")]
    UnknownSource,
    #[error("this source does not take requests from {address}")]
    AddressNotAllowed { address: String },
    #[error("the source takes no more requests this second")]
    RateLimited,
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the request could not be read")]
    Unreadable { detail: String },
    #[error("webhooks come by POST")]
    MethodNotAllowed,
    #[error("the request was refused")]
    Refused(#[from] Refusal),
    #[error("the sources are not loaded yet")]
    NotLoaded,
    #[error("the source cannot verify anything")]
    Misconfigured { detail: String },
    #[error("what the source verifies with cannot be fetched")]
    Unfetched(#[source] Arc<FetchError>),
    #[error("what was fetched to verify with cannot be used: {url}")]
    Unusable { url: String },
    #[error("the event store took too long")]
    TooSlow,
    #[error("the event store is unavailable")]
    Store(#[from] batcher::Refused<posthorn_store::Error>),
}

impl GatewayError {
    /// The reason that a rejected request is kept under; `None` for our own faults.
    pub fn rejection(&self) -> Option<(&'static str, String)> {
        let reason = match self {
            Self::UnknownSource => "unknown_source",
            Self::AddressNotAllowed { .. } => "address_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::TooLarge { .. } => "payload_too_large",
            Self::Unreadable { .. } => "malformed_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Refused(refusal) => return Some((refusal.kind.as_str(), refusal.detail.clone())),
            Self::NotLoaded
            | Self::Misconfigured { .. }
            | Self::Unfetched(_)
            | Self::Unusable { .. }
            | Self::TooSlow
            | Self::Store(_) => return None,
        };
        Some((reason, self.to_string()))
    }

    pub fn problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::UnknownSource => Problem::new(404, "unknown-source", "Unknown source", detail),
            Self::AddressNotAllowed { .. } => Problem::new(403, "address-not-allowed", "Address not allowed", detail),
            Self::RateLimited => {
                Problem { retry_after_secs: Some(1), ..Problem::new(429, "rate-limited", "Too many requests", detail) }
            }
            Self::TooLarge { .. } => Problem::new(413, "payload-too-large", "Payload too large", detail),
            Self::Unreadable { detail } => Problem::new(400, "malformed-request", "Malformed request", detail.clone()),
            Self::MethodNotAllowed => Problem::new(405, "method-not-allowed", "Method not allowed", detail),
            Self::Refused(refusal) => {
                let detail = format!("{}: {}", refusal.kind.as_str(), refusal.detail);
                match refusal.kind.class() {
                    RefusalClass::Unauthenticated => {
                        Problem::new(401, "signature-invalid", "Signature invalid", detail)
                    }
                    RefusalClass::Malformed => Problem::new(400, "malformed-request", "Malformed request", detail),
                }
            }
            Self::NotLoaded
            | Self::Misconfigured { .. }
            | Self::Unfetched(_)
            | Self::Unusable { .. }
            | Self::TooSlow
            | Self::Store(_) => Problem {
                retry_after_secs: Some(5),
                ..Problem::new(503, "unavailable", "Unavailable", "the event could not be stored; send it again")
            },
        }
    }
}

impl ResponseError for GatewayError {
    fn error_response(&self) -> HttpResponse {
        let mut response = self.problem().response();
        if matches!(self, Self::MethodNotAllowed) {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

/// Why the gateway does not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("INGRESS_GATEWAY_SEALING_KEYS (or POSTHORN_SEALING_KEYS)")]
    SealingKeys(#[from] posthorn_store::seal::Error),
    #[error("INGRESS_GATEWAY_DATABASE__URL (or POSTHORN_DATABASE_URL)")]
    Database(#[source] posthorn_store::Error),
    #[error("INGRESS_GATEWAY_BROKER__URL (or POSTHORN_BROKER_URL): {0}")]
    Broker(String),
    #[error(transparent)]
    Bind(#[from] posthorn_process::http::BindError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
    #[error("the HTTP server failed")]
    Http(#[from] std::io::Error),
}
