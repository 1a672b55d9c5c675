//! The gateway's settings. `defaults.toml` beside this file has every value and its reason.

use std::time::Duration;

use posthorn_process::{egress, http, keys, telemetry};
use secrecy::SecretString;
use serde::Deserialize;

pub const DEFAULTS: &str = include_str!("defaults.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Keys for what is sealed in the database: `id:base64 of 32 bytes`, comma-separated.
    pub sealing_keys: SecretString,
    /// How long requests in hand may take after the signal to stop.
    pub shutdown_grace_seconds: u64,
    pub http: http::Settings,
    pub log: telemetry::Settings,
    pub database: posthorn_store::Settings,
    pub broker: posthorn_bus::Settings,
    pub accept: Accept,
    pub endpoints: egress::Settings,
    pub keys: keys::Settings,
    pub rejected: Rejected,
    pub relay: Relay,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Largest body in bytes, unless a source says otherwise.
    pub max_body_bytes: usize,
    /// Largest body in bytes that a source may ask for.
    pub hard_max_body_bytes: usize,
    /// Longest wait for a request's body, in milliseconds.
    pub body_timeout_ms: u64,
    /// Batches written at the same time.
    pub writers: usize,
    /// Events in one batch.
    pub batch_events: usize,
    /// Bytes of bodies in one batch.
    pub batch_bytes: usize,
    /// Requests taken in at the same time.
    pub max_in_flight: usize,
    /// Bytes of the bodies that they hold.
    pub max_in_flight_bytes: usize,
    /// Addresses whose rates are remembered.
    pub rated_addresses: u64,
    /// Requests that may wait for a batch.
    pub queue: usize,
    /// Longest wait for the commit, in milliseconds.
    pub timeout_ms: u64,
    /// How many reverse proxies in front append to `X-Forwarded-For`.
    pub trusted_proxies: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Refused requests kept for each source in a minute.
    pub per_source_and_minute: u32,
    /// Largest refused request, in bytes, that is kept with its content.
    pub max_request_bytes: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Largest body, in bytes, that rides along in the message.
    pub inline_bytes: usize,
    /// Events handed over and not yet published.
    pub queue: usize,
    /// Pause between two looks at the outbox, in milliseconds.
    pub poll_ms: u64,
    /// Outbox rows taken at once.
    pub batch: i64,
    /// For how long they are taken, in seconds.
    pub lease_seconds: u32,
    /// Events waiting in their queue above which nothing is published again.
    pub max_depth: u32,
}

impl Settings {
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}
