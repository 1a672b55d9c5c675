//! `ETag` and `If-Match` (RFC 9110 §8.8.3, §13.1.1): a caller cannot overwrite a change that it has not seen.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::{ETAG, IF_MATCH};
use jiff::Timestamp;
use posthorn_core::time::to_micros;
use serde::Serialize;

use crate::error::{ApiError, ApiResult};

/// A thing as it is shown, with the version that it has.
pub fn shown(view: &impl Serialize, updated_at: Timestamp) -> HttpResponse {
    HttpResponse::Ok().insert_header((ETAG, etag(updated_at))).json(view)
}

/// Fails if the caller names versions, and `updated_at` is none of them.
pub fn check(request: &HttpRequest, updated_at: Timestamp) -> ApiResult<()> {
    let mut named = request.headers().get_all(IF_MATCH).peekable();
    if named.peek().is_none() {
        return Ok(());
    }
    let current = etag(updated_at);
    let is_current = |tag: &str| tag == "*" || tag == current;
    let any = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| is_current(tag.trim()));
    if any { Ok(()) } else { Err(unquoted(request).map_or(ApiError::PreconditionFailed, ApiError::UnquotedEtag)) }
}

/// A tag that was written without its quotes; a weak one is another version, as strong ones are compared.
fn unquoted(request: &HttpRequest) -> Option<String> {
    let values = request.headers().get_all(IF_MATCH).filter_map(|value| value.to_str().ok());
    let tag = values.flat_map(|value| value.split(',')).map(str::trim).find(|tag| !tag.ends_with('"'))?;
    Some(tag.trim_matches('"').chars().take(64).collect())
}

fn etag(updated_at: Timestamp) -> String {
    format!("\"{:x}\"", to_micros(updated_at))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_version_is_current_in_a_list_and_by_a_star_and_not_otherwise() {
        let at = Timestamp::from_second(1_782_864_000).unwrap();
        let holds = |value: &str| {
            let request = TestRequest::default().insert_header((IF_MATCH, value)).to_http_request();
            check(&request, at).is_ok()
        };
        assert!(holds("*") && holds(&etag(at)) && holds(&format!("\"0\", {}", etag(at))));
        assert!(!holds("\"0\"") && !holds("") && !holds(&format!("W/{}", etag(at))));
        let unquoted = TestRequest::default().insert_header((IF_MATCH, "5f3a")).to_http_request();
        let told = check(&unquoted, at).unwrap_err().to_string();
        assert!(told.ends_with("`If-Match: \"5f3a\"`"), "{told}");
        assert!(check(&TestRequest::default().to_http_request(), at).is_ok());
    }
}
