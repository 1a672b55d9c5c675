//! What every Posthorn process does alike: settings, telemetry, start and stop, health, errors over HTTP,
//! the keys that providers publish, and the one way in which a delivery is attempted.

pub mod admin;
mod dialled;
pub mod egress;
pub mod http;
pub mod keys;
mod launch;
pub mod problem;
pub mod sender;
pub mod settings;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use launch::{Service, main};
