//! `posthorn migrate`

use clap::Args;
use jiff::Timestamp;
use posthorn_store::seal::Sealer;
use posthorn_store::{Settings, Store, migrate};
use secrecy::SecretString;

use crate::error::CliError;
use crate::say;

#[derive(Debug, Args)]
pub struct Migrate {
    /// The database, `postgres://user:password@host:port/database`.
    #[arg(long, env = "POSTHORN_DATABASE_URL", hide_env_values = true)]
    database_url: SecretString,
}

impl Migrate {
    pub async fn run(self) -> Result<(), CliError> {
        let settings = Settings {
            url: self.database_url,
            max_connections: 2,
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 60_000,
            generic_plans: false,
        };
        // Migrating opens no secret.
        let store = Store::new(&settings, Sealer::none())?;
        let applied = migrate::run(&store, Timestamp::now()).await?;
        if applied.is_empty() {
            say("the schema is current");
        }
        for migration in applied {
            say(format_args!("applied {migration}"));
        }
        Ok(())
    }
}
