//! Attempts at endpoints of every kind, on loopback.

// A failure here is a failed test, in helpers as well.
#![allow(clippy::unwrap_used)]

mod attempt;
mod connections;
mod guard;
mod no_answer;
mod proxy;
mod tls;
