//! The dispatcher's settings. `defaults.toml` beside this file has every value and its reason.

use std::time::Duration;

use posthorn_process::{egress, http, keys, sender, telemetry};
use secrecy::SecretString;
use serde::Deserialize;

pub const DEFAULTS: &str = include_str!("defaults.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Keys for what is sealed in the database: `id:base64 of 32 bytes`, comma-separated.
    pub sealing_keys: SecretString,
    /// The operator's bearer tokens, comma-separated, each of at least 20 characters; any of them is good.
    pub operator_token: SecretString,
    /// How the outside reaches the gateway.
    pub gateway_url: String,
    /// How this service reaches the gateway, for tests of sources; empty is the same.
    pub gateway_internal_url: String,
    /// How long work in hand may take after the signal to stop.
    pub shutdown_grace_seconds: u64,
    pub http: http::Settings,
    pub log: telemetry::Settings,
    pub database: posthorn_store::Settings,
    pub broker: posthorn_bus::Settings,
    pub endpoints: egress::Settings,
    pub keys: keys::Settings,
    pub sender: sender::Settings,
    pub api: Api,
    pub fan_out: FanOut,
    pub scheduler: Scheduler,
    pub clerk: Clerk,
    pub replay: Replay,
    pub warden: Warden,
    pub janitor: Janitor,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Web pages whose scripts may call the API (CORS): origins, comma-separated; `*` is any, empty is none.
    pub allowed_origins: String,
    /// Requests that a tenant's key may make in a second, in each dispatcher.
    pub key_requests_per_second: f64,
    /// Tests of subscriptions under way at the same time.
    pub tests_in_flight: usize,
    /// How long a key that was looked up is believed, in seconds.
    pub key_cache_seconds: u64,
    /// Keys remembered at the same time.
    pub key_cache_entries: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanOut {
    /// Event messages in hand at the same time.
    pub prefetch: u16,
    /// Deliveries inserted by one statement.
    pub batch_deliveries: usize,
    /// Statements under way at the same time.
    pub writers: usize,
    /// Most deliveries made from one message; wider events are split.
    pub chunk: usize,
    /// Largest body, in bytes, that rides along in delivery messages.
    pub inline_bytes: usize,
    /// Most deliveries of one event whose messages carry the body.
    pub inline_fan_out: usize,
    /// How long a message may wait in its queue before it counts as lost, in seconds.
    pub queue_lease_seconds: u64,
    /// Messages in a deliveries queue beyond which a tenant that sends more than its part waits in the database.
    pub max_ahead: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheduler {
    /// Pause between two rounds, in milliseconds.
    pub poll_ms: u64,
    /// Subscriptions looked at in one round.
    pub subscriptions: i64,
    /// Deliveries of one subscription released in one round.
    pub per_subscription: u32,
    /// Lost messages replaced in one round.
    pub lost: i64,
    /// Messages waiting in the work queues above which nothing is published.
    pub max_depth: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clerk {
    /// Dead letters in hand at the same time.
    pub prefetch: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Pause between two steps of a job, in milliseconds.
    pub poll_ms: u64,
    /// Dead letters or events dealt with in one step.
    pub batch: u32,
    /// Deliveries that a job sets going in a second, unless it is asked for another rate.
    pub rate_per_second: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warden {
    /// Pause between two looks, in milliseconds.
    pub poll_ms: u64,
    /// For how long a subscription may fail before it is disabled, in seconds.
    pub disable_after_seconds: u64,
}

impl Warden {
    pub fn disable_after(&self) -> Duration {
        Duration::from_secs(self.disable_after_seconds)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Janitor {
    /// Pause between two rounds, in seconds.
    pub every_seconds: u64,
    /// Days for which events, deliveries and attempts are kept.
    pub keep_days: i64,
    /// Days for which dedup keys are kept; at least 4.
    pub keep_dedup_days: i64,
    /// Days for which rejected requests are kept.
    pub keep_rejected_days: i64,
    /// Bytes of refused requests that are kept of each source; of older ones only that they were refused.
    pub rejected_bytes_per_source: i64,
    /// Days for which replay jobs that ended are kept.
    pub keep_replays_days: i64,
    /// Days for which counts by the hour are kept.
    pub keep_stats_days: i64,
    /// Rows of counts that are merged at once, when their hour is over.
    pub merge_batch: i64,
    /// How long after it was deleted a tenant is erased, in seconds: attempts in hand end first, and are erased too.
    pub erase_after_seconds: u64,
    /// Rows of a deleted tenant that are erased at once.
    pub erase_batch: i64,
}

impl Settings {
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}
