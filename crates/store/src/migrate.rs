//! Brings the schema to this version. Forward only.

use jiff::Timestamp;
use refinery::Target;

use crate::{Error, Result, Store, partitions};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Advisory lock held while migrating: refinery itself takes none.
const LOCK: i64 = 0x706f_7374_686f_726e;

/// Runs what is missing, one transaction for each migration, and makes the partitions of the coming
/// week. Any number of processes may call it at once.
pub async fn run(store: &Store, now: Timestamp) -> Result<Vec<String>> {
    run_to(store, Target::Latest, now).await
}

/// Brings the schema to the version that an older program was built for.
pub async fn run_to_version(store: &Store, version: i32, now: Timestamp) -> Result<Vec<String>> {
    run_to(store, Target::Version(version), now).await
}

async fn run_to(store: &Store, target: Target, now: Timestamp) -> Result<Vec<String>> {
    let (config, tls) = store.raw();
    let mut config = config.clone();
    // A migration may take its time, and waits for another process that migrates.
    config.options(format!("{} -c statement_timeout=0 -c lock_timeout=0", config.get_options().unwrap_or_default()));
    let (mut client, connection) = config.connect(tls).await?;
    let connection = tokio::spawn(connection);
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let report = embedded::migrations::runner()
        .set_target(target)
        .run_async(&mut client)
        .await
        .map_err(|error| Error::Migration(Box::new(error)))?;
    let applied = report.applied_migrations().iter().map(ToString::to_string).collect();
    // The session's end gives the lock back.
    drop(client);
    let _ = connection.await;
    partitions::ensure(&store.client().await?, now).await?;
    Ok(applied)
}

/// Whether the schema is the one that this program was built for.
pub async fn is_current(store: &Store) -> Result<bool> {
    let client = store.client().await?;
    let known = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or_default();
    let applied: Option<i32> = client
        .query_one("SELECT CASE WHEN to_regclass('refinery_schema_history') IS NULL THEN NULL ELSE 1 END", &[])
        .await?
        .get(0);
    if applied.is_none() {
        return Ok(false);
    }
    let newest: Option<i32> = client.query_one("SELECT max(version) FROM refinery_schema_history", &[]).await?.get(0);
    Ok(newest.is_some_and(|newest| i64::from(newest) >= i64::from(known)))
}
