use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls_platform_verifier::BuilderVerifierExt;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::seal::Sealer;
use crate::{Error, Result};

/// How to reach PostgreSQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `postgres://user:password@host:port/database`; `sslmode=require` asks for TLS.
    pub url: SecretString,
    /// Most connections that this process opens.
    pub max_connections: usize,
    /// Longest wait for a free or new connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Longest run of one statement, in milliseconds.
    pub statement_timeout_ms: u64,
    /// Whether a statement is planned once for a connection, and not again for each run.
    pub generic_plans: bool,
}

/// Connections to the record, and the keys for what is sealed in it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    sealer: Sealer,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Store {
    /// Reads the settings. Connects to nothing yet: a database that is down now may be up later.
    pub fn new(settings: &Settings, sealer: Sealer) -> Result<Self> {
        crate::sabotage::confess();
        let config = connection_config(settings)?;
        let tls = tls()?;
        let manager = Manager::from_config(
            config.clone(),
            tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let wait = Some(Duration::from_millis(settings.connect_timeout_ms));
        let pool = Pool::builder(manager)
            .max_size(settings.max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(wait)
            .create_timeout(wait)
            .recycle_timeout(wait)
            .build()
            .map_err(|error| Error::Url { detail: error.to_string() })?;
        Ok(Self { pool, config, tls, sealer })
    }

    pub async fn client(&self) -> Result<Client> {
        Ok(self.pool.get().await?)
    }

    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Whether a statement goes through right now.
    pub async fn ping(&self) -> Result<()> {
        self.client().await?.simple_query("SELECT 1").await?;
        Ok(())
    }

    /// Whether the record can be written right now: a standby may still answer reads, and any of the tables that
    /// everything goes through may be locked.
    pub async fn ping_write(&self) -> Result<()> {
        const WRITES: &str = "
            UPDATE outbox SET due_at = due_at WHERE false;
            UPDATE events SET duplicates = duplicates WHERE false;
            UPDATE deliveries SET due_at = due_at WHERE false;
            UPDATE attempts SET number = number WHERE false;
            UPDATE subscription_runtime SET head = head WHERE false";
        self.client().await?.simple_query(WRITES).await?;
        Ok(())
    }

    /// Waits until writes go through, however long that takes.
    pub async fn recovered(&self) {
        while self.ping_write().await.is_err() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Connections in use, and all that are open.
    pub fn connections(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size.saturating_sub(status.available), status.size)
    }

    pub(crate) fn raw(&self) -> (&tokio_postgres::Config, MakeRustlsConnect) {
        (&self.config, self.tls.clone())
    }
}

fn connection_config(settings: &Settings) -> Result<tokio_postgres::Config> {
    if settings.url.expose_secret().is_empty() {
        return Err(Error::Url { detail: "it is not set".to_owned() });
    }
    let mut config: tokio_postgres::Config =
        settings.url.expose_secret().parse().map_err(|error: tokio_postgres::Error| Error::Url {
            // The driver's message names the part at fault and never the value.
            detail: error.to_string(),
        })?;
    let given = config.get_options().unwrap_or_default().to_owned();
    config.options(format!(
        "{given} -c statement_timeout={} -c lock_timeout=2000 -c idle_in_transaction_session_timeout=10000 -c timezone=UTC \
         -c plan_cache_mode={} -c jit=off",
        settings.statement_timeout_ms,
        if settings.generic_plans { "force_generic_plan" } else { "auto" },
    ));
    config.connect_timeout(Duration::from_millis(settings.connect_timeout_ms));
    // A database that vanished without a word is noticed within about half a minute.
    config.keepalives_idle(Duration::from_secs(15));
    config.tcp_user_timeout(Duration::from_secs(15));
    Ok(config)
}

fn tls() -> Result<MakeRustlsConnect> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| Error::Url { detail: format!("no TLS: {error}") })?
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
