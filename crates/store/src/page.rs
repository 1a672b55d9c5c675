//! Keyset paging: newest first, by id.

use tokio_postgres::Statement;
use uuid::Uuid;

use crate::{GenericClient, Result};

/// Which rows a list shows.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Only ids below this one; `None` begins at the newest.
    pub before: Option<Uuid>,
    pub limit: i64,
}

impl Page {
    /// The bound for `id < $n`.
    pub(crate) fn before(&self) -> Uuid {
        self.before.unwrap_or(Uuid::max())
    }

    /// One more than is shown, which tells whether there is a next page.
    pub(crate) fn fetch(&self) -> i64 {
        self.limit + 1
    }
}

/// Ids from `from` up to, not including, `to`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: Uuid,
    pub to: Uuid,
}

impl Default for Span {
    fn default() -> Self {
        Self { from: Uuid::nil(), to: Uuid::max() }
    }
}

/// Prepares a list's statement for one run, so that it is planned for the values at hand.
///
/// A plan for any values reads a small tenant's rows, or those of a rare type, from among everybody's: that
/// is the cheapest for the average one. Planning over all partitions takes about 10 ms, and reading by the
/// wrong index takes seconds.
pub(crate) async fn prepare(db: &impl GenericClient, sql: &str) -> Result<Statement> {
    Ok(db.prepare(sql).await?)
}
