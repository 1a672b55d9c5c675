//! `Idempotency-Key`: a creating request that is repeated gets its first answer again.
//!
//! Key, effect and answer are one transaction. A process that dies in between leaves none of them,
//! and a repeat that comes meanwhile waits for the first to commit.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use posthorn_store::idempotency::{self, Known};
use posthorn_store::{Store, Transaction};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use super::{Caller, now};
use crate::error::{ApiError, ApiResult};

/// A creating request, with or without a key.
#[derive(Debug)]
pub struct Once {
    actor: Uuid,
    key: Option<String>,
    request_hash: Vec<u8>,
}

impl Once {
    pub fn of(caller: Caller, request: &HttpRequest, body: &[u8]) -> ApiResult<Self> {
        let key = match request.headers().get("idempotency-key") {
            None => None,
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                if text.is_empty() || text.len() > 255 || !text.bytes().all(|b| b.is_ascii_graphic()) {
                    let detail = "must be a text of 1 to 255 printable ASCII characters, without blanks";
                    return Err(ApiError::field("Idempotency-Key", detail));
                }
                Some(text.to_owned())
            }
        };
        let mut text = format!("{} {}\n", request.method(), request.uri()).into_bytes();
        text.extend_from_slice(body);
        Ok(Self { actor: caller.as_uuid(), key, request_hash: digest(&SHA256, &text).as_ref().to_vec() })
    }

    /// The first answer, if the request was made before. Otherwise the key is this request's, if
    /// `transaction` commits.
    pub async fn answered(&self, transaction: &Transaction<'_>, store: &Store) -> ApiResult<Option<HttpResponse>> {
        let Some(key) = &self.key else { return Ok(None) };
        match idempotency::begin(transaction, self.actor, key, &self.request_hash, now()).await? {
            Known::Fresh => Ok(None),
            Known::Different => Err(ApiError::IdempotencyConflict),
            Known::Answered { status, response } => {
                let body = store.sealer().open(&self.row(key), &response).map_err(posthorn_store::Error::from)?;
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                Ok(Some(
                    HttpResponse::build(status)
                        .content_type("application/json")
                        .insert_header(("idempotent-replayed", "true"))
                        .body(body),
                ))
            }
        }
    }

    /// Answers 201 with `view`, and commits.
    pub async fn created(
        &self,
        transaction: Transaction<'_>,
        store: &Store,
        view: &impl Serialize,
    ) -> ApiResult<HttpResponse> {
        self.answer(StatusCode::CREATED, transaction, store, view).await
    }

    /// Answers 202 with `view`, and commits.
    pub async fn accepted(
        &self,
        transaction: Transaction<'_>,
        store: &Store,
        view: &impl Serialize,
    ) -> ApiResult<HttpResponse> {
        self.answer(StatusCode::ACCEPTED, transaction, store, view).await
    }

    /// The kept answer is sealed: it may show a secret.
    async fn answer(
        &self,
        status: StatusCode,
        transaction: Transaction<'_>,
        store: &Store,
        view: &impl Serialize,
    ) -> ApiResult<HttpResponse> {
        // Views are structs of strings, numbers and lists: there is nothing that cannot be written.
        let body = serde_json::to_vec(view).unwrap_or_default();
        if let Some(key) = &self.key {
            let sealed = store.sealer().seal(&self.row(key), &body);
            idempotency::finish(&transaction, self.actor, key, status.as_u16(), &sealed).await?;
        }
        transaction.commit().await.map_err(posthorn_store::Error::from)?;
        Ok(HttpResponse::build(status).content_type("application/json").body(body))
    }

    /// What the answer is sealed for.
    fn row(&self, key: &str) -> Uuid {
        let mut bytes = [0; 16];
        let hash = digest(&SHA256, format!("{}/{key}", self.actor).as_bytes());
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        Uuid::from_bytes(bytes)
    }
}
