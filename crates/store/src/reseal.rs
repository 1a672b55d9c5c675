//! Sealing anew what an older key sealed, so that the key can be given up.
//!
//! Runs beside the services: a value that was changed meanwhile is left as it is. The kept answers of
//! `idempotency_keys` are only counted, since each is forgotten within a day.

use uuid::Uuid;

use crate::seal::{self, Sealer};
use crate::{GenericClient, Result};

/// A column of sealed values, each sealed for its row's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    SourceSecrets,
    SubscriptionSecrets,
    /// The keys of client certificates.
    SubscriptionKeys,
    /// Credentials among the subscriptions' own headers.
    SubscriptionHeaders,
    RejectedRequests,
}

/// How many of a shelf's values one key sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// A shelf's name, or `idempotency_keys`.
    pub shelf: &'static str,
    pub key_id: String,
    pub values: i64,
}

/// What became of some values.
#[derive(Debug)]
pub struct Page {
    /// Sealed with the first key now.
    pub resealed: u64,
    /// Those that stay as they are, since none of the keys opens them.
    pub unopened: Vec<(Uuid, seal::Error)>,
    /// Where the next page begins.
    pub last: Uuid,
}

impl Shelf {
    pub const ALL: [Self; 5] = [
        Self::SourceSecrets,
        Self::SubscriptionSecrets,
        Self::SubscriptionKeys,
        Self::SubscriptionHeaders,
        Self::RejectedRequests,
    ];

    /// Its name in counts: the table's, but for headers, which share a table with the keys of client certificates.
    pub fn name(self) -> &'static str {
        match self {
            Self::SubscriptionHeaders => "subscription_headers",
            _ => self.place().0,
        }
    }

    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::SourceSecrets => ("source_secrets", "sealed"),
            Self::SubscriptionSecrets => ("subscription_secrets", "sealed"),
            Self::SubscriptionKeys => ("subscriptions", "tls_client_key"),
            Self::SubscriptionHeaders => ("subscriptions", "sealed_headers"),
            Self::RejectedRequests => ("rejected_requests", "request"),
        }
    }
}

/// How many values each key sealed, shelf by shelf.
pub async fn census(db: &impl GenericClient) -> Result<Vec<Count>> {
    let mut counts = Vec::new();
    let shelves = Shelf::ALL.map(|shelf| (shelf.name(), shelf.place()));
    for (shelf, (table, column)) in shelves.into_iter().chain([("idempotency_keys", ("idempotency_keys", "response"))])
    {
        // A value opens with the length of its key's id and the id itself.
        let statement = format!(
            "SELECT encode(substring({column} FROM 2 FOR get_byte({column}, 0)), 'escape') AS key_id, count(*) AS values
             FROM {table} WHERE octet_length({column}) > 0 GROUP BY 1 ORDER BY 1"
        );
        for row in db.query(&statement, &[]).await? {
            counts.push(Count { shelf, key_id: row.get("key_id"), values: row.get("values") });
        }
    }
    Ok(counts)
}

/// Whether the first key opens what is sealed under its id, as far as one value tells: a key with the right
/// id and other bytes opens nothing, and must not pass for the right one.
pub async fn opens(db: &impl GenericClient, sealer: &Sealer, shelf: Shelf) -> Result<bool> {
    let (table, column) = shelf.place();
    let sql = format!(
        "SELECT id, {column} AS sealed FROM {table} WHERE substring({column} FROM 1 FOR octet_length($1::bytea)) = $1 LIMIT 1"
    );
    let row = db.query_opt(&sql, &[&sealer.head()]).await?;
    Ok(row.is_none_or(|row| sealer.open(&row.get("id"), row.get("sealed")).is_ok()))
}

/// Seals anew at most `limit` of the values behind `after` that the first key did not seal; `None`
/// when there are no more.
pub async fn page(
    db: &impl GenericClient,
    sealer: &Sealer,
    shelf: Shelf,
    after: Uuid,
    limit: i64,
) -> Result<Option<Page>> {
    let (table, column) = shelf.place();
    let head = sealer.head();
    let select = format!(
        "SELECT id, {column} AS sealed FROM {table}
         WHERE id > $1 AND octet_length({column}) > 0 AND substring({column} FROM 1 FOR octet_length($2::bytea)) <> $2
         ORDER BY id LIMIT $3"
    );
    let rows = db.query(&select, &[&after, &head, &limit]).await?;
    let Some(last) = rows.last().map(|row| row.get("id")) else { return Ok(None) };

    let (mut ids, mut before, mut anew, mut unopened) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (id, sealed): (Uuid, Vec<u8>) = (row.get("id"), row.get("sealed"));
        match sealer.open(&id, &sealed) {
            Ok(open) => {
                ids.push(id);
                anew.push(sealer.seal(&id, &open));
                before.push(sealed);
            }
            Err(error) => unopened.push((id, error)),
        }
    }
    let update = format!(
        "UPDATE {table} SET {column} = new.sealed
         FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS new (id, before, sealed)
         WHERE {table}.id = new.id AND {table}.{column} = new.before"
    );
    let resealed = db.execute(&update, &[&ids, &before, &anew]).await?;
    Ok(Some(Page { resealed, unopened, last }))
}
