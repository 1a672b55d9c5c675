//! What the management API answers when it does not do as asked.

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use posthorn_process::keys;
use posthorn_process::problem::{FieldError, Problem};

pub type ApiResult<T = HttpResponse> = Result<T, ApiError>;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the body is not JSON: {0}")]
    Malformed(String),
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    #[error("the request has no `Authorization: Bearer …` header with a token")]
    NoToken,
    #[error("the token is unknown, expired or revoked")]
    BadToken,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    #[error("there is nothing at this path")]
    NoRoute,
    #[error("the path does not take this method; it takes {allow}")]
    MethodNotAllowed { allow: String },
    #[error("{detail}")]
    Conflict { detail: String, errors: Vec<FieldError> },
    #[error("the resource was changed since: `If-Match` names another version")]
    PreconditionFailed,
    #[error("`If-Match` takes an etag in its quotes, as an answer's `ETag` header has it: `If-Match: \"{0}\"`")]
    UnquotedEtag(String),
    #[error("the idempotency key was used with another request")]
    IdempotencyConflict,
    #[error("the key makes more requests in a second than it may; try again")]
    TooManyRequests { retry_after_secs: u32 },
    #[error("too many tests are in progress; try again")]
    TooManyTests,
    #[error("the body has more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("the provider's keys cannot be fetched: {0}")]
    Unfetched(String),
    #[error("the database cannot be reached")]
    Store(#[source] posthorn_store::Error),
}

impl ApiError {
    /// One field that is wrong.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict { detail: detail.into(), errors: Vec::new() }
    }

    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    fn problem(&self) -> Problem {
        let detail = self.to_string();
        match self {
            Self::Malformed(_) => Problem::new(400, "malformed-request", "Malformed request", detail),
            Self::Invalid(errors) => Problem {
                errors: errors.clone(),
                ..Problem::new(422, "validation-failed", "Validation failed", detail)
            },
            Self::NoToken | Self::BadToken => Problem::new(401, "unauthorized", "Unauthorized", detail),
            Self::Forbidden(_) => Problem::new(403, "forbidden", "Forbidden", detail),
            Self::NotFound { .. } | Self::NoRoute => Problem::new(404, "not-found", "Not found", detail),
            Self::MethodNotAllowed { .. } => Problem::new(405, "method-not-allowed", "Method not allowed", detail),
            Self::Conflict { errors, .. } => {
                Problem { errors: errors.clone(), ..Problem::new(409, "conflict", "Conflict", detail) }
            }
            Self::PreconditionFailed | Self::UnquotedEtag(_) => {
                Problem::new(412, "precondition-failed", "Precondition failed", detail)
            }
            Self::IdempotencyConflict => Problem::new(409, "idempotency-conflict", "Idempotency conflict", detail),
            Self::TooManyRequests { retry_after_secs } => Problem {
                retry_after_secs: Some(*retry_after_secs),
                ..Problem::new(429, "rate-limited", "Rate limited", detail)
            },
            Self::TooManyTests => {
                Problem { retry_after_secs: Some(5), ..Problem::new(429, "rate-limited", "Rate limited", detail) }
            }
            Self::TooLarge { .. } => Problem::new(413, "payload-too-large", "Payload too large", detail),
            Self::Unfetched(_) => {
                Problem { retry_after_secs: Some(10), ..Problem::new(503, "unavailable", "Unavailable", detail) }
            }
            Self::Store(error) if error.is_permanent() => {
                tracing::error!(error = error as &dyn std::error::Error, "a request failed by our fault");
                let detail = "something went wrong on our side; the request id leads to it";
                Problem::new(500, "internal", "Internal error", detail)
            }
            Self::Store(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "the database cannot be reached");
                Problem { retry_after_secs: Some(2), ..Problem::new(503, "unavailable", "Unavailable", detail) }
            }
        }
    }
}

impl ResponseError for ApiError {
    fn error_response(&self) -> HttpResponse {
        let mut response = self.problem().response();
        let (name, value) = match self {
            Self::NoToken => ("www-authenticate", "Bearer"),
            Self::BadToken => ("www-authenticate", "Bearer error=\"invalid_token\""),
            Self::MethodNotAllowed { allow } => ("allow", allow.as_str()),
            _ => return response,
        };
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        response
    }
}

impl From<posthorn_store::Error> for ApiError {
    fn from(error: posthorn_store::Error) -> Self {
        Self::Store(error)
    }
}

fn summary(errors: &[FieldError]) -> String {
    match errors {
        [] => "the request is wrong".to_owned(),
        [one] if one.pointer.is_empty() => one.detail.clone(),
        [one] => format!("`{}`: {}", one.pointer, one.detail),
        many => format!("{} fields are wrong", many.len()),
    }
}

/// Why the dispatcher does not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("DISPATCHER_SEALING_KEYS (or POSTHORN_SEALING_KEYS)")]
    SealingKeys(#[from] posthorn_store::seal::Error),
    #[error("DISPATCHER_DATABASE__URL (or POSTHORN_DATABASE_URL)")]
    Database(#[source] posthorn_store::Error),
    #[error("DISPATCHER_BROKER__URL (or POSTHORN_BROKER_URL): {0}")]
    Broker(String),
    #[error("DISPATCHER_KEYS__…")]
    Keys(#[from] keys::SetUpError),
    #[error("the client for the gateway cannot be built")]
    Client(#[from] reqwest::Error),
    #[error("DISPATCHER_OPERATOR_TOKEN (or POSTHORN_OPERATOR_TOKEN) has to have at least 20 characters")]
    WeakToken,
    #[error("DISPATCHER_API__ALLOWED_ORIGINS")]
    Origins(#[from] crate::cors::NoOrigin),
    #[error("DISPATCHER_JANITOR__KEEP_DEDUP_DAYS is less than 4: providers repeat for up to 3 days")]
    DedupTooShort,
    #[error(transparent)]
    Bind(#[from] posthorn_process::http::BindError),
    #[error("the HTTP server failed")]
    Http(#[from] std::io::Error),
}
