//! Why the worker does not start or ended.

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("DELIVERY_WORKER_SEALING_KEYS (or POSTHORN_SEALING_KEYS)")]
    SealingKeys(#[from] posthorn_store::seal::Error),
    #[error("DELIVERY_WORKER_DATABASE__URL (or POSTHORN_DATABASE_URL)")]
    Database(#[source] posthorn_store::Error),
    #[error("DELIVERY_WORKER_BROKER__URL (or POSTHORN_BROKER_URL): {0}")]
    Broker(String),
    #[error(transparent)]
    Bind(#[from] posthorn_process::http::BindError),
    #[error("DELIVERY_WORKER_SENDER__…")]
    Sender(#[from] posthorn_process::keys::SetUpError),
    #[error("the HTTP server failed")]
    Http(#[from] std::io::Error),
}
