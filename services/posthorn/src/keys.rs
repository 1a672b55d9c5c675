//! `posthorn keys list|reseal`: which keys seal the secrets in the database, and giving one up.

use clap::{Args, Subcommand};
use posthorn_store::reseal::{self, Count, Page, Shelf};
use posthorn_store::seal::Sealer;
use posthorn_store::{Client, Settings, Store};
use secrecy::SecretString;
use uuid::Uuid;

use crate::error::CliError;
use crate::say;

/// Values that are read, sealed and written at once. Refused requests are of up to some MiB.
const PAGE: i64 = 20;

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Count what each key sealed.
    List(Record),
    /// Seal with the first key what another one sealed, while the services run; safe to repeat.
    Reseal(Record),
}

/// The record and the keys, as the services have them.
#[derive(Debug, Args)]
pub struct Record {
    /// The database, `postgres://user:password@host:port/database`.
    #[arg(long, env = "POSTHORN_DATABASE_URL", hide_env_values = true)]
    database_url: SecretString,
    /// `id:base64 of 32 bytes`, comma-separated: the first seals, all open.
    #[arg(long, env = "POSTHORN_SEALING_KEYS", hide_env_values = true)]
    sealing_keys: SecretString,
}

impl Keys {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(record) => record.list().await,
            Self::Reseal(record) => record.reseal().await,
        }
    }
}

impl Record {
    async fn list(self) -> Result<(), CliError> {
        let store = self.store()?;
        let db = store.client().await?;
        self.check(&store, &db).await?;
        let counts = reseal::census(&db).await?;
        tell(store.sealer(), &counts);
        unknown(store.sealer(), &counts)
    }

    async fn reseal(self) -> Result<(), CliError> {
        let store = self.store()?;
        let db = store.client().await?;
        self.check(&store, &db).await?;
        let mut stuck = 0;
        for shelf in Shelf::ALL {
            let mut resealed = 0;
            let mut after = Uuid::nil();
            while let Some(page) = reseal::page(&db, store.sealer(), shelf, after, PAGE).await? {
                let Page { unopened, last, .. } = page;
                resealed += page.resealed;
                after = last;
                stuck += unopened.len();
                for (id, error) in unopened {
                    say(format_args!("{} {id} stays as it is: {error}", shelf.name()));
                }
            }
            say(format_args!("{}: {resealed} sealed anew", shelf.name()));
        }
        tell(store.sealer(), &reseal::census(&db).await?);
        if stuck > 0 { Err(CliError::Unopened(stuck)) } else { Ok(()) }
    }

    /// Fails when the first key is not the one that its id says.
    async fn check(&self, store: &Store, db: &Client) -> Result<(), CliError> {
        for shelf in Shelf::ALL {
            if !reseal::opens(db, store.sealer(), shelf).await? {
                return Err(CliError::WrongKey(shelf.name()));
            }
        }
        Ok(())
    }

    fn store(&self) -> Result<Store, CliError> {
        let settings = Settings {
            url: self.database_url.clone(),
            max_connections: 1,
            connect_timeout_ms: 10_000,
            statement_timeout_ms: 60_000,
            generic_plans: false,
        };
        let sealer = Sealer::parse(&self.sealing_keys).map_err(posthorn_store::Error::from)?;
        Ok(Store::new(&settings, sealer)?)
    }
}

/// Says what each key sealed, and which ones are needed no more.
fn tell(sealer: &Sealer, counts: &[Count]) {
    for Count { shelf, key_id, values } in counts {
        say(format_args!("{shelf:<22} {key_id:<12} {values:>10}"));
    }
    for key_id in sealer.key_ids().skip(1) {
        say(match need(key_id, counts) {
            Need::None => format!("{key_id}: nothing is sealed with it, it can be taken out of the list"),
            Need::ForADay => format!("{key_id}: needed for a day, until the last kept answer is forgotten"),
            Need::Reseal => format!("{key_id}: needed; `posthorn keys reseal` seals anew what it sealed"),
        });
    }
}

/// Fails when there is something that only a key opens which is not in the list.
fn unknown(sealer: &Sealer, counts: &[Count]) -> Result<(), CliError> {
    let is_unknown = |count: &&Count| sealer.key_ids().all(|id| id != count.key_id);
    let values: i64 = counts.iter().filter(is_unknown).map(|count| count.values).sum();
    if values > 0 { Err(CliError::Unopened(usize::try_from(values).unwrap_or_default())) } else { Ok(()) }
}

#[derive(Debug, PartialEq, Eq)]
enum Need {
    None,
    /// Only by what is forgotten within a day.
    ForADay,
    Reseal,
}

fn need(key_id: &str, counts: &[Count]) -> Need {
    let resealable = |count: &Count| Shelf::ALL.iter().any(|shelf| shelf.name() == count.shelf);
    let sealed: Vec<&Count> = counts.iter().filter(|count| count.key_id == key_id).collect();
    if sealed.is_empty() {
        Need::None
    } else if sealed.into_iter().any(resealable) {
        Need::Reseal
    } else {
        Need::ForADay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_needed_as_long_as_something_is_sealed_with_it() {
        let count = |shelf, key_id: &str| Count { shelf, key_id: key_id.into(), values: 1 };
        let counts = [
            count("source_secrets", "k3"),
            count("source_secrets", "k1"),
            count("idempotency_keys", "k1"),
            count("idempotency_keys", "k2"),
        ];
        assert_eq!(need("k1", &counts), Need::Reseal);
        assert_eq!(need("k2", &counts), Need::ForADay);
        assert_eq!(need("k0", &counts), Need::None);
    }
}
