use jiff::Timestamp;
use posthorn_store::seal::Sealer;
use posthorn_store::{Settings, Store, migrate};
use secrecy::SecretString;

use crate::{unique, variable};

/// Sealing keys of tests.
pub const SEALING_KEYS: &str = "test:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A schema of this test's own, at this version.
#[derive(Debug)]
pub struct Database {
    /// With the schema as its search path.
    pub url: String,
    pub store: Store,
}

impl Database {
    pub async fn create() -> Self {
        let database = Self::empty().await;
        migrate::run(&database.store, Timestamp::now()).await.expect("the migrations");
        database
    }

    /// At the version of an older program.
    pub async fn create_at(version: i32) -> Self {
        let database = Self::empty().await;
        migrate::run_to_version(&database.store, version, Timestamp::now()).await.expect("the migrations");
        database
    }

    async fn empty() -> Self {
        let schema = format!("test_{}", unique());
        let base = variable("POSTHORN_TEST_DATABASE_URL");
        let (client, connection) = tokio_postgres::connect(&base, tokio_postgres::NoTls).await.expect("the database");
        let connection = tokio::spawn(connection);
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.expect("a schema");
        drop(client);
        let _ = connection.await;

        let separator = if base.contains('?') { '&' } else { '?' };
        let url = format!("{base}{separator}options=-csearch_path%3D{schema}");
        let store = Self::store(&url);
        Self { url, store }
    }

    /// The same schema for connections that the database lets read only, as a standby or a full disk does.
    pub fn read_only(&self) -> Store {
        Self::store(&format!("{}%20-cdefault_transaction_read_only%3Don", self.url))
    }

    fn store(url: &str) -> Store {
        let settings = Settings {
            url: SecretString::from(url),
            max_connections: 8,
            connect_timeout_ms: 5_000,
            statement_timeout_ms: 10_000,
            generic_plans: false,
        };
        let sealer = Sealer::parse(&SecretString::from(SEALING_KEYS)).expect("the keys");
        Store::new(&settings, sealer).expect("the settings")
    }
}
