//! The services, the record and the broker as one: real PostgreSQL, real RabbitMQ, HTTP in and out.

// A failure here is a failed test, in helpers as well.
#![allow(clippy::unwrap_used)]

mod accepting;
mod broker;
mod connections;
mod cors;
mod counts;
mod erasure;
mod event_types;
mod headers;
mod health;
mod lists;
mod machine;
mod ordered;
mod outbox;
mod partitions;
mod record;
mod replays;
mod reseal;
mod returned;
mod road;
mod samples;
mod sources;
mod subscriptions;
mod takeover;
mod unreadable;
mod upgrade;
