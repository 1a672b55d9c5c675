//! RabbitMQ, which moves the work of Posthorn.
//!
//! PostgreSQL is the record: a message lost or doubled here never matters. Even so nothing is let go
//! lightly: queues are replicated, publishes are confirmed one by one, and a message is settled only
//! after the work it stands for was recorded.
//!
//! Publishing and consuming have a connection each, since a broker in alarm blocks a connection that
//! publishes, acknowledgements included. Each is rebuilt from the start when anything about it ends;
//! lapin's own recovery is off, because a consumer can hang under it for ever.

mod connection;
mod consumer;
mod depth;
mod publisher;
pub mod topology;

pub use connection::Settings;
pub use consumer::{Consumer, Disposition, Gate, Handler, Message, consume};
pub use depth::Depth;
pub use publisher::{Outgoing, PublishError, Publisher, publisher};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a connection stands right now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<AtomicBool>);

impl Link {
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, up: bool) {
        self.0.store(up, Ordering::Relaxed);
    }
}
