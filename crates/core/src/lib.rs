//! The values and decisions of Posthorn.
//!
//! Everything worth arguing about is here, as functions of values: whether a signature holds, who
//! gets an event, when to try again, which address may be reached. There is no clock, socket,
//! database, runtime or randomness: time and chance are arguments.

#[macro_use]
mod names;

pub mod address;
pub mod body;
pub mod breaker;
pub mod crowd;
pub mod dedup;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod envelope;
pub mod event_type;
pub mod failing;
pub mod hold;
pub mod id;
pub mod lane;
pub mod message;
pub mod operational;
pub mod order;
pub mod outcome;
pub mod pace;
pub mod plain;
pub mod provider;
pub mod redact;
pub mod replay;
pub mod request;
pub mod retry;
pub mod routing;
pub mod schema;
pub mod share;
pub mod signature;
pub mod signing;
pub mod subscription;
pub mod time;
pub mod tls;
pub mod words;
