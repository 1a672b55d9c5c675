//! The management API: one file for each resource, and what they share.

pub mod api_keys;
pub mod audit_log;
mod auth;
mod body;
pub mod dead_letters;
pub mod deliveries;
pub mod event_types;
pub mod events;
mod idempotency;
mod params;
pub mod rates;
pub mod rejected_requests;
pub mod replays;
mod rotation;
pub mod sources;
pub mod stats;
pub mod subscriptions;
pub mod tenants;
mod version;

use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use posthorn_core::egress::Egress;
use posthorn_process::keys::Keys;
use posthorn_process::sender::Sender;
use posthorn_store::Store;
use posthorn_store::snapshot::Subscriptions;
use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::Semaphore;

pub use auth::Caller;
use auth::KnownKey;
use rates::KeyRates;

use crate::replay::Replayer;

/// What handlers work with.
pub struct Api {
    pub store: Store,
    pub egress: Egress,
    /// Where the outside finds the gateway, and where we do.
    pub gateway_url: String,
    pub gateway_internal_url: String,
    pub gateway: reqwest::Client,
    /// For tests of subscriptions, and how many of them may be under way.
    pub subscriptions: Subscriptions,
    pub sender: Sender,
    pub tests: Semaphore,
    /// For how long repeats of an event are known.
    pub keep_dedup: Duration,
    /// How many requests each tenant's key may make.
    pub rates: KeyRates,
    /// What jobs are begun with.
    pub replayer: Replayer,
    /// For how long a subscription may fail.
    pub disable_after: Duration,
    /// What requests are verified with that a gateway refused.
    pub keys: Keys,
    pub operator_tokens: Vec<SecretString>,
    pub max_body_bytes: usize,
    /// By hash; `None` is remembered too.
    pub known_keys: Cache<[u8; 32], Option<KnownKey>>,
}

/// A page of a list.
#[derive(Serialize)]
struct List<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// From one more row than is shown; `id` tells a row's place.
    fn of<R>(mut rows: Vec<R>, limit: i64, id: impl Fn(&R) -> uuid::Uuid, view: impl Fn(R) -> T) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| id(row).simple().to_string());
        Self { data: rows.into_iter().map(view).collect(), next_cursor }
    }
}

/// The present moment, as fine as PostgreSQL keeps it.
fn now() -> Timestamp {
    posthorn_core::time::whole_micros(Timestamp::now())
}
