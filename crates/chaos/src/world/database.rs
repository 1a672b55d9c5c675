//! The world's PostgreSQL: reached directly, and what can be done to it from inside.

use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls};

use crate::error::Result;
use crate::world::library::Library;
use crate::world::tree;

/// Enough for the services (about 65) and for us, and few enough to take up all of them.
const MAX_CONNECTIONS: &str = "max_connections=90";
/// Statements are recognised by the tables in them, wherever they stand.
const WHOLE_STATEMENTS: &str = "track_activity_query_size=16384";

/// Tables whose rows make files grow.
const GROWING: [&str; 4] = ["events", "deliveries", "attempts", "outbox"];

pub struct Database {
    password: String,
    port: u16,
}

impl Database {
    pub async fn start(library: &Library, port: u16) -> Result<Self> {
        let password = library.call("postgres_password", &[]).await?.trim().to_owned();
        let database = Self { password, port };
        database.start_again(library).await?;
        Ok(database)
    }

    /// Sees to it that the server runs.
    pub async fn start_again(&self, library: &Library) -> Result<()> {
        let port = self.port.to_string();
        library.call("start_postgres", &[&port, MAX_CONNECTIONS, WHOLE_STATEMENTS]).await.map(drop)
    }

    pub async fn stop(&self, library: &Library) -> Result<()> {
        library.call("stop_postgres", &[]).await.map(drop)
    }

    /// Not over the wire.
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    pub fn url_through(&self, port: u16) -> String {
        format!("postgres://posthorn:{}@127.0.0.1:{port}/posthorn", self.password)
    }

    /// A connection of our own.
    pub async fn connect(&self) -> Result<Client> {
        let mut config: tokio_postgres::Config = self.url().parse()?;
        config.application_name("chaos").connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn kill(&self, library: &Library) -> Result<()> {
        tree::signal_all(library.running("postgres")?, Signal::KILL)
    }

    pub fn freeze(&self, library: &Library) -> Result<()> {
        tree::signal_all(library.running("postgres")?, Signal::STOP)
    }

    pub fn thaw(&self, library: &Library) -> Result<()> {
        library.pid("postgres").map_or(Ok(()), |pid| tree::signal_all(pid, Signal::CONT))
    }

    /// Ends the services' connections; returns how many.
    pub async fn disconnect_services(&self, client: &Client) -> Result<i64> {
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE application_name LIKE 'chaos-%' AND usename = current_user";
        Ok(client.query_one(ended, &[]).await?.get(0))
    }

    /// From now on every write that makes a file grow fails as PostgreSQL says it of a full disk.
    pub async fn fill_up(&self) -> Result<()> {
        let mut statements = "CREATE OR REPLACE FUNCTION chaos_disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;"
            .to_owned();
        for table in GROWING {
            statements.push_str(&format!(
                "CREATE OR REPLACE TRIGGER chaos_disk_is_full BEFORE INSERT OR UPDATE ON {table}
                 FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_is_full();"
            ));
        }
        Ok(self.connect().await?.batch_execute(&statements).await?)
    }

    pub async fn make_room(&self) -> Result<()> {
        Ok(self.connect().await?.batch_execute("DROP FUNCTION IF EXISTS chaos_disk_is_full() CASCADE").await?)
    }
}
