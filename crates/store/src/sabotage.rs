//! What the proof takes out of the product, to see that it sees: builds for `deploy/local/chaos` alone.
//!
//! Each is a feature that nothing turns on by itself, and a process that was built with one says so when it starts.

/// The fence of [`crate::deliveries::claim`]: a message takes a row only under the lease that it went under.
#[cfg(not(feature = "sabotage-fence"))]
macro_rules! fence {
    () => {
        " AND d.due_at = c.lease"
    };
}
#[cfg(feature = "sabotage-fence")]
macro_rules! fence {
    () => {
        ""
    };
}

/// The outbox of [`crate::events::accept`]: a row for each event that is accepted.
#[cfg(not(feature = "sabotage-outbox"))]
macro_rules! outbox {
    () => {
        ""
    };
}
#[cfg(feature = "sabotage-outbox")]
macro_rules! outbox {
    () => {
        " WHERE false"
    };
}

pub(crate) use {fence, outbox};

/// Tells what was taken out of this build.
pub(crate) fn confess() {
    if cfg!(feature = "sabotage-fence") {
        tracing::error!("this build has no fence and repeats attempts: it is for proofs only");
    }
    if cfg!(feature = "sabotage-outbox") {
        tracing::error!("this build has no outbox and loses events: it is for proofs only");
    }
}
