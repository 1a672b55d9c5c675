//! Query parameters and path ids, read strictly: an unknown name is refused, and all that is wrong is told at once.

use std::collections::BTreeMap;
use std::str::FromStr;

use actix_web::HttpRequest;
use jiff::Timestamp;
use posthorn_core::event_type::Pattern;
use posthorn_core::id::{self, TenantId};
use posthorn_core::words::unknown;
use posthorn_store::page::{Page, Span};
use uuid::Uuid;

use super::body::Checks;
use crate::contract::Query;
use crate::error::{ApiError, ApiResult};

/// The query of a request.
#[derive(Debug)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads the query; `known` are the names that the operation has.
    pub fn of(request: &HttpRequest, known: &[&str]) -> ApiResult<Self> {
        let query = request.match_pattern().map(|path| Query::of(request.method().as_str(), &path)).unwrap_or_default();
        let mut params = BTreeMap::new();
        let mut checks = Checks::default();
        for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                checks.fail(name.as_ref(), unknown("parameter", &name, known));
            } else if value.contains('\0') {
                checks.fail(name, "holds a NUL character");
            } else if params.contains_key(name.as_ref()) {
                checks.fail(name, "is given twice");
            } else {
                let value = query.read(&name, value.into_owned()).unwrap_or_else(|detail| {
                    checks.fail(name.as_ref(), detail);
                    String::new()
                });
                params.insert(name.into_owned(), value);
            }
        }
        for name in query.required().filter(|name| !params.contains_key(*name)) {
            checks.fail(name, query.left_out(name));
        }
        checks.finish()?;
        Ok(Self(params))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn parsed<T: FromStr>(&self, name: &str) -> ApiResult<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        self.text(name)
            .map(|text| text.parse().map_err(|error: T::Err| ApiError::field(name, error.to_string())))
            .transpose()
    }

    pub fn tenant(&self) -> ApiResult<Option<TenantId>> {
        self.parsed("tenant_id")
    }

    pub fn page(&self) -> ApiResult<Page> {
        let limit = match self.text("limit") {
            None => 50,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=200).contains(limit))
                .ok_or_else(|| ApiError::field("limit", "must be a whole number from 1 to 200"))?,
        };
        let before = match self.text("cursor") {
            None => None,
            Some(text) => {
                let cursor = Uuid::try_parse(text).ok().filter(|_| text.len() == 32);
                Some(cursor.ok_or_else(|| {
                    ApiError::field("cursor", "is not a cursor: take the `next_cursor` of the page before")
                })?)
            }
        };
        Ok(Page { before, limit })
    }

    /// `from` and `to` as a range of ids.
    pub fn span(&self) -> ApiResult<Span> {
        let whole = Span::default();
        Ok(Span {
            from: self.parsed::<Timestamp>("from")?.map_or(whole.from, id::floor),
            to: self.parsed::<Timestamp>("to")?.map_or(whole.to, id::floor),
        })
    }

    /// The length of the time that is looked back on, in seconds; a day unless it is said.
    pub fn window_seconds(&self) -> ApiResult<u64> {
        const MOST: u64 = 400 * 86_400;
        let Some(text) = self.text("window_seconds") else { return Ok(86_400) };
        let seconds = text.parse().ok().filter(|seconds| (1..=MOST).contains(seconds));
        seconds.ok_or_else(|| ApiError::field("window_seconds", format!("must be a whole number from 1 to {MOST}")))
    }

    /// Patterns separated by commas.
    pub fn event_types(&self) -> ApiResult<Vec<Pattern>> {
        let Some(text) = self.text("event_type") else { return Ok(Vec::new()) };
        Pattern::parse_list(text).map_err(|error| ApiError::field("event_type", error.to_string()))
    }
}

/// An id in the path. What is none names nothing.
pub fn path_id<T: FromStr>(what: &'static str, text: &str) -> ApiResult<T> {
    text.parse().map_err(|_| ApiError::not_found(what, text))
}
