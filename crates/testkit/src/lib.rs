//! For tests only: a private database and broker, a receiver, a whole world.
//!
//! Everything is real: PostgreSQL and RabbitMQ are those that `POSTHORN_TEST_DATABASE_URL`,
//! `POSTHORN_TEST_BROKER_URL` and `POSTHORN_TEST_BROKER_MANAGEMENT_URL` name (`deploy/local/test`
//! starts them), with a schema and a vhost of its own for each test.

// Here a failure is a failed test, and a panic is how it is told.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod api;
mod broker;
mod contract;
mod database;
mod receiver;
mod stripe;
mod world;

pub use api::Api;
pub use broker::Broker;
pub use database::{Database, SEALING_KEYS};
pub use receiver::{Received, Receiver};
pub use stripe::Stripe;
pub use world::{Answer, World, gateway_without_database};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a condition may take to come true. Far more than it needs, since test machines are small.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Asks again and again until `condition` gives something; fails the test at the deadline.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `deploy/local/test` sets it"))
}

/// A short name that no other test has.
fn unique() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}
