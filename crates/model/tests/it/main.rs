//! What the model claims, and that it can see.

// A failure here is a failed test, in helpers as well; and what was looked at is told.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod blindness;
mod orders;
