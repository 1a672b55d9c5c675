//! What the gateway answers when it does not accept.

use std::sync::Arc;

use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use jiff::Timestamp;
use posthorn_core::schema::Violation;
use posthorn_core::signature::{Refusal, RefusalClass};
use posthorn_core::time::since;
use posthorn_process::keys::{self, FetchError, JudgeError};
use posthorn_process::problem::{FieldError, Problem};
use posthorn_store::batcher;

/// Why a request was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("no source has the address `{path}`{}", hint.as_ref().map(|hint| format!("; did you mean `{hint}`?")).unwrap_or_default())]
    UnknownSource { path: String, hint: Option<String> },
    #[error("this source does not take requests from {address}")]
    AddressNotAllowed { address: String },
    #[error("more requests than this source takes in a second")]
    RateLimited { retry_after_secs: u32 },
    #[error("the body is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the request could not be read")]
    Unreadable { detail: String },
    #[error("this source takes {}", methods.join(", "))]
    MethodNotAllowed { methods: &'static [&'static str] },
    #[error("the request was refused")]
    Refused(#[from] Refusal),
    #[error("the payload is not what the schema of `{event_type}` allows")]
    PayloadInvalid { event_type: String, violation: Violation },
    #[error("more is being taken in than there is room for")]
    Overloaded,
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

impl From<JudgeError> for GatewayError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Refused(refusal) => Self::Refused(refusal),
            JudgeError::Unfetched(error) => Self::Unfetched(error),
            JudgeError::Unusable { url } => Self::Unusable { url },
        }
    }
}

impl GatewayError {
    /// The reason that a rejected request is kept under; `None` for our own faults.
    pub fn rejection(&self) -> Option<(&'static str, String)> {
        let reason = match self {
            Self::UnknownSource { .. } => "unknown_source",
            Self::AddressNotAllowed { .. } => "address_not_allowed",
            Self::RateLimited { .. } => "rate_limited",
            Self::TooLarge { .. } => "payload_too_large",
            Self::Unreadable { .. } => "malformed_request",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::PayloadInvalid { violation, .. } => return Some(("payload_invalid", violation.to_string())),
            Self::Refused(refusal) => return Some((refusal.kind.as_str(), refusal.detail.clone())),
            Self::Overloaded
            | Self::NotLoaded
            | Self::Misconfigured { .. }
            | Self::Unfetched(_)
            | Self::Unusable { .. }
            | Self::TooSlow
            | Self::Store(_) => return None,
        };
        Some((reason, self.to_string()))
    }

    /// Refused until `at`.
    pub fn limited(now: Timestamp, at: Timestamp) -> Self {
        Self::RateLimited { retry_after_secs: since(now, at).as_secs_f64().ceil().max(1.0) as u32 }
    }

    /// Whether the whole request was read, so that it can be verified again.
    pub fn is_of_content(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::PayloadInvalid { .. })
    }

    pub fn problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::UnknownSource { .. } => Problem::new(404, "unknown-source", "Unknown source", detail),
            Self::AddressNotAllowed { .. } => Problem::new(403, "address-not-allowed", "Address not allowed", detail),
            Self::RateLimited { retry_after_secs } => Problem {
                retry_after_secs: Some(*retry_after_secs),
                ..Problem::new(429, "rate-limited", "Too many requests", detail)
            },
            Self::PayloadInvalid { violation, .. } => Problem {
                errors: vec![FieldError { pointer: violation.pointer.clone(), detail: violation.detail.clone() }],
                ..Problem::new(422, "payload-invalid", "Payload invalid", detail)
            },
            Self::TooLarge { .. } => Problem::new(413, "payload-too-large", "Payload too large", detail),
            Self::Unreadable { detail } => Problem::new(400, "malformed-request", "Malformed request", detail.clone()),
            Self::MethodNotAllowed { .. } => Problem::new(405, "method-not-allowed", "Method not allowed", detail),
            Self::Refused(refusal) => {
                let detail = format!("{}: {}", refusal.kind.as_str(), refusal.detail);
                match refusal.kind.class() {
                    RefusalClass::Unauthenticated => {
                        Problem::new(401, "signature-invalid", "Signature invalid", detail)
                    }
                    RefusalClass::Malformed => Problem::new(400, "malformed-request", "Malformed request", detail),
                }
            }
            Self::Overloaded
            | Self::NotLoaded
            | Self::Misconfigured { .. }
            | Self::Unfetched(_)
            | Self::Unusable { .. }
            | Self::TooSlow
            | Self::Store(_) => Problem {
                retry_after_secs: Some(5),
                ..Problem::new(
                    503,
                    "unavailable",
                    "Unavailable",
                    "the request could not be taken in, by our fault; send it again",
                )
            },
        }
    }
}

impl ResponseError for GatewayError {
    fn error_response(&self) -> HttpResponse {
        let mut response = self.problem().response();
        if let Self::MethodNotAllowed { methods } = self
            && let Ok(allow) = HeaderValue::from_str(&methods.join(", "))
        {
            response.headers_mut().insert(ALLOW, allow);
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
    #[error("INGRESS_GATEWAY_KEYS__…")]
    Keys(#[from] keys::SetUpError),
    #[error("the HTTP server failed")]
    Http(#[from] std::io::Error),
}
