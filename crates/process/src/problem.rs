//! Errors as the outside sees them: `application/problem+json` (RFC 9457).

use actix_web::HttpResponse;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::middleware::Next;
use serde::Serialize;
use tracing_actix_web::RequestId;

/// A problem; `slug` is the last part of its type, and each has a page in `docs/problems/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub status: u16,
    pub slug: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// The fields at fault, where fields are.
    pub errors: Vec<FieldError>,
    pub retry_after_secs: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON Pointer into the body, or the name of a parameter or header.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    pub fn new(status: u16, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, slug, title, detail: detail.into(), errors: Vec::new(), retry_after_secs: None }
    }

    /// The answer. The request id is put in by [`finish`].
    pub fn response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        if let Some(seconds) = self.retry_after_secs {
            response.insert_header((RETRY_AFTER, seconds));
        }
        let mut response = response.finish();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Middleware: every answer carries the request's id, and a problem becomes its document.
pub async fn finish(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    use actix_web::HttpMessage as _;
    let id = request.extensions().get::<RequestId>().map(|id| format!("req_{}", id.simple())).unwrap_or_default();
    let mut response = match next.call(request).await {
        Ok(response) => response.map_into_boxed_body(),
        // Nothing of ours ends here: handlers and extractors answer with problems.
        Err(error) => return Err(error),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let problem = response.response_mut().extensions_mut().remove::<Problem>();
    if let Some(problem) = problem {
        let document = Document {
            kind: format!("/problems/{}", problem.slug),
            title: problem.title,
            status: problem.status,
            detail: &problem.detail,
            request_id: &id,
            errors: &problem.errors,
        };
        // Strings and numbers: there is nothing that cannot be written.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response = response.map_body(|_, _| BoxBody::new(body));
    }
    Ok(response)
}
