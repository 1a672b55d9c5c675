//! How many requests a tenant's key may make, told with every answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpMessage as _;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use jiff::Timestamp;
use moka::sync::Cache;
use posthorn_core::id::ApiKeyId;
use posthorn_core::pace::{self, Bucket};
use posthorn_core::time::since;

/// The buckets of the keys that were used last.
pub struct KeyRates {
    per_second: f64,
    buckets: Cache<ApiKeyId, Arc<Mutex<Bucket>>>,
}

/// What is left to a key, after a request of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub is_allowed: bool,
    /// Requests that may be made at once, when none were for a while.
    limit: u32,
    remaining: u32,
    /// Seconds until there is one more.
    pub reset_secs: u32,
}

impl KeyRates {
    pub fn new(per_second: f64, keys: u64) -> Self {
        // A bucket is full again a second after it was last used, and is then like a new one.
        Self { per_second, buckets: Cache::builder().max_capacity(keys).time_to_idle(Duration::from_secs(10)).build() }
    }

    pub fn take(&self, key: ApiKeyId, now: Timestamp) -> Left {
        let fresh = || Arc::new(Mutex::new(Bucket { tokens: 0.0, at: None }));
        let bucket = self.buckets.get_with(key, fresh);
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left) = pace::take(&bucket, self.per_second, 1, now);
        *bucket = left;
        let wait = since(now, pace::next_token(&left, self.per_second, now));
        Left {
            is_allowed: taken == 1,
            limit: self.per_second.max(1.0) as u32,
            remaining: left.tokens.max(0.0) as u32,
            reset_secs: wait.as_secs_f64().ceil() as u32,
        }
    }
}

/// Middleware: an answer to a key says what is left to it.
pub async fn tell(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut response = next.call(request).await?;
    let left = response.request().extensions().get::<Left>().copied();
    if let Some(left) = left {
        let told = [
            ("ratelimit-limit", left.limit),
            ("ratelimit-remaining", left.remaining),
            ("ratelimit-reset", left.reset_secs),
        ];
        for (name, value) in told {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_is_told_what_is_left_and_when_there_is_more() {
        let rates = KeyRates::new(2.0, 10);
        let key = ApiKeyId::from_uuid(Uuid::from_u128(1));
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let left = |is_allowed, remaining, reset_secs| Left { is_allowed, limit: 2, remaining, reset_secs };
        assert_eq!(rates.take(key, at(100)), left(true, 1, 0));
        assert_eq!(rates.take(key, at(100)), left(true, 0, 1));
        assert_eq!(rates.take(key, at(100)), left(false, 0, 1));
        assert!(rates.take(ApiKeyId::from_uuid(Uuid::from_u128(2)), at(100)).is_allowed, "each has its own");
        assert!(rates.take(key, at(101)).is_allowed);
    }
}
