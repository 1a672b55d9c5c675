//! What rotating a secret takes, be it a source's or a subscription's.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::time::later;
use serde::Deserialize;

use super::body::{Body, Checks, given};
use crate::contract::Shape;
use crate::error::ApiResult;

/// Longest time for which an old secret stays good beside the new one, in seconds: a week.
const MAX_OVERLAP_SECONDS: u64 = 604_800;

/// How long it does unless the caller says otherwise: a day.
const DEFAULT_OVERLAP_SECONDS: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The new secret, where the caller brings one.
    #[serde(default, deserialize_with = "given")]
    pub secret: Option<String>,
    #[serde(default = "default_overlap")]
    overlap_seconds: u64,
}

fn default_overlap() -> u64 {
    DEFAULT_OVERLAP_SECONDS
}

impl Rotation {
    /// Reads a request's body. Invalid where the overlap is longer than a week.
    pub fn parse(body: &Body) -> ApiResult<Self> {
        let rotation: Self = body.parse_optional(Shape::RotateSecret)?;
        let mut checks = Checks::default();
        checks.require(
            rotation.overlap_seconds <= MAX_OVERLAP_SECONDS,
            "/overlap_seconds",
            "must be a whole number from 0 to 604800",
        );
        checks.finish()?;
        Ok(rotation)
    }

    /// When the old secrets end; `None` where they end with the rotation.
    pub fn old_until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.overlap_seconds > 0).then(|| later(now, Duration::from_secs(self.overlap_seconds)))
    }
}
