//! What a command can fail with.

use std::path::PathBuf;

use crate::refusal::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} is needed: give it as an option or in the environment")]
    Missing(&'static str),
    #[error("{0} must be an absolute URL, such as `http://127.0.0.1:8081`")]
    NoUrl(&'static str),
    #[error("the request could not be made")]
    Request(#[from] reqwest::Error),
    #[error("cannot reach {url}, which {setting} names")]
    Unreachable {
        url: String,
        setting: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("{0}")]
    Refused(Refusal),
    #[error("{label}")]
    Thing {
        label: String,
        #[source]
        source: Box<CliError>,
    },
    #[error("the answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("the database")]
    Store(#[from] posthorn_store::Error),
    #[error("{path}: {fault}")]
    Deployment { path: PathBuf, fault: String },
    #[error("{0}")]
    Apply(String),
    #[error("the payload is not JSON")]
    Payload(#[source] serde_json::Error),
    #[error("the secret cannot be used: {0}")]
    Secret(String),
    #[error("the first key does not open what is sealed under its id in `{0}`: it is another key of that name")]
    WrongKey(&'static str),
    #[error("{0} values open with none of the keys")]
    Unopened(usize),
    #[error("{0} of the events sent did not arrive in time")]
    NotArrived(usize),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Bind(#[from] posthorn_process::http::BindError),
    #[error("the system")]
    Io(#[from] std::io::Error),
}

impl CliError {
    /// A request that got no answer; `setting` is where its URL comes from.
    pub fn unanswered(source: reqwest::Error, setting: &'static str) -> Self {
        match source.url() {
            Some(url) if source.is_connect() => {
                Self::Unreachable { url: url.origin().ascii_serialization(), setting, source: source.without_url() }
            }
            _ => Self::Request(source),
        }
    }

    /// Names the thing that was refused.
    pub fn of(self, label: impl Into<String>) -> Self {
        Self::Thing { label: label.into(), source: Box::new(self) }
    }
}
