//! What every Posthorn process does alike: settings, telemetry, start and stop, health, errors over HTTP.

pub mod admin;
pub mod http;
mod launch;
pub mod problem;
pub mod settings;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use launch::{Service, main};
