//! PostgreSQL, the record of Posthorn: one module for each aggregate.
//!
//! Functions take any client, so they run on a connection or inside the caller's transaction. SQL
//! stands beside the function that sends it, and nowhere else in the workspace. What is written on
//! the hot path is written in batches ([`batcher`]), one statement each, without BEGIN and COMMIT.

pub mod api_keys;
pub mod audit_log;
pub mod batcher;
pub mod changes;
pub mod chores;
pub mod dead_letters;
pub mod deliveries;
pub mod delivery_stats;
mod error;
pub mod event_types;
pub mod events;
pub mod health;
pub mod idempotency;
pub mod migrate;
pub mod notices;
pub mod page;
pub mod partitions;
mod pool;
pub mod rejected_requests;
pub mod replays;
pub mod reseal;
pub mod rollup;
mod sabotage;
pub mod schedule;
pub mod seal;
pub mod snapshot;
pub mod source_stats;
pub mod sources;
pub mod subscriptions;
pub mod tenants;
mod type_filter;

use uuid::Uuid;

pub use deadpool_postgres::{Client, GenericClient, Transaction};
pub use error::{Error, Result};
pub use pool::{Settings, Store};

/// How many rows an hour's count is spread over: statements at the same time seldom meet in one.
const STATS_SHARDS: i16 = 16;

/// The row of its hour in which one statement counts.
fn stats_shard() -> i16 {
    rand::random_range(0..STATS_SHARDS)
}

/// In counts, in the place of a tenant, a subscription or a source: all of them.
const EVERY: Uuid = Uuid::max();
