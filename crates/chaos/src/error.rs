//! What keeps the proof from going on. What the proof finds is not an error: that is a [`crate::ledger::Check`].

pub type Result<T, E = ChaosError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("HTTP failed: {0:?}")]
    Http(#[from] reqwest::Error),
    #[error("SQL failed: {0:?}")]
    Sql(#[from] tokio_postgres::Error),
    #[error("{what} was answered {status}: {body}")]
    Refused { what: String, status: u16, body: String },
    #[error("{what} ended with {code:?}:\n{printed}")]
    Script { what: String, code: Option<i32>, printed: String },
    #[error("{0}")]
    Unexpected(String),
}

/// An error in words.
pub fn unexpected(what: impl Into<String>) -> ChaosError {
    ChaosError::Unexpected(what.into())
}
