//! The worker's settings. `defaults.toml` beside this file has every value and its reason.

use std::time::Duration;

use posthorn_core::{breaker, share};
use posthorn_process::{egress, sender, telemetry};
use secrecy::SecretString;
use serde::Deserialize;

pub const DEFAULTS: &str = include_str!("defaults.toml");

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Keys for what is sealed in the database: `id:base64 of 32 bytes`, comma-separated.
    pub sealing_keys: SecretString,
    /// How long attempts in hand may take after the signal to stop.
    pub shutdown_grace_seconds: u64,
    pub http: Http,
    pub log: telemetry::Settings,
    pub database: posthorn_store::Settings,
    pub broker: posthorn_bus::Settings,
    pub endpoints: egress::Settings,
    pub sender: sender::Settings,
    pub delivery: Delivery,
    pub breaker: Breaker,
    pub record: Record,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub host: String,
    /// 0 takes any free port.
    pub admin_port: u16,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Messages in hand from each queue.
    pub prefetch: u16,
    /// Longest wait of a message for its endpoint's turn, in milliseconds.
    pub patience_ms: u64,
    /// Bytes of event bodies kept in memory.
    pub body_cache_bytes: u64,
    /// Age of an event beyond which no retry of it is planned, in seconds.
    pub max_age_seconds: u64,
    /// Attempts under way at the same time.
    pub slots: u32,
    /// The part of the slots that one tenant may have while others wait.
    pub tenant_share: f64,
    /// The part of the slots for attempts after the third, and for replays.
    pub late_share: f64,
}

impl Delivery {
    pub fn share(&self) -> share::Limits {
        share::Limits { slots: self.slots.max(1), tenant_share: self.tenant_share, late_share: self.late_share }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// How far back attempts count, in seconds. Half of them failed opens a subscription's breaker.
    pub window_seconds: u64,
    /// Attempts in the window below which their share opens nothing.
    pub window_attempts: u32,
    /// Subscriptions whose attempts are remembered, each in about a kilobyte; beyond it, those that were the longest
    /// without an attempt are forgotten.
    pub windows: u64,
    /// Failures in a row over the whole window that open the breaker of an endpoint that is seldom asked.
    pub failures_in_row: u32,
    /// How long the endpoint is then left alone, in seconds; twice as long each time that most of five probes failed.
    pub cooldown_seconds: u64,
    /// Longest cool-down, in seconds.
    pub max_cooldown_seconds: u64,
}

impl From<&Breaker> for breaker::Limits {
    fn from(settings: &Breaker) -> Self {
        Self {
            window: Duration::from_secs(settings.window_seconds),
            attempts: settings.window_attempts,
            failures_in_row: settings.failures_in_row,
            cooldown: Duration::from_secs(settings.cooldown_seconds),
            max_cooldown: Duration::from_secs(settings.max_cooldown_seconds),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Batches written at the same time.
    pub writers: usize,
    /// Results in one batch.
    pub batch: usize,
}

impl Settings {
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}
