use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between us and the record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database is unreachable")]
    Unreachable(#[from] PoolError),
    #[error("the database refused a statement")]
    Statement(#[source] tokio_postgres::Error),
    /// A rule of the schema said no; the name tells which.
    #[error("the constraint `{constraint}` does not allow it")]
    Constraint { constraint: String },
    #[error("`{what}` in the database cannot be read")]
    Corrupt { what: &'static str },
    #[error("a sealed secret cannot be opened")]
    Sealed(#[from] crate::seal::Error),
    #[error("the database URL cannot be used: {detail}")]
    Url { detail: String },
    #[error("a migration failed")]
    Migration(#[source] Box<refinery::Error>),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let named = error.as_db_error().filter(|db| {
            [SqlState::UNIQUE_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION, SqlState::CHECK_VIOLATION].contains(db.code())
        });
        match named.and_then(|db| db.constraint()) {
            Some(constraint) => Self::Constraint { constraint: constraint.to_owned() },
            None => Self::Statement(error),
        }
    }
}

impl Error {
    /// Whether the values at hand are at fault, so that another try with the same ones fails again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Statement(error) => error.code().is_some_and(|code| {
                // Class 22 is data exceptions: a value that the type cannot hold.
                code.code().starts_with("22")
            }),
            Self::Constraint { .. } | Self::Corrupt { .. } | Self::Sealed(_) => true,
            Self::Unreachable(_) | Self::Url { .. } | Self::Migration(_) => false,
        }
    }
}

/// Reads a column that holds one of our own names or documents.
pub(crate) fn readable<T>(what: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or(Error::Corrupt { what })
}
