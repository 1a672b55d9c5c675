//! A subscription's own headers at rest: credentials sealed, the others in clear.
//!
//! The column `headers` says which headers there are. It holds the text of a plain one, and the fingerprint of a secret,
//! whose value is in `sealed_headers`. Versions before 16 of the schema stored credentials in clear: they are secrets here
//! as well, and [`seal_clear`] seals them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use posthorn_core::id::SubscriptionId;
use posthorn_core::redact;
use posthorn_core::subscription::HeaderValue;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use tracing::error;
use uuid::Uuid;

use crate::error::readable;
use crate::seal::Sealer;
use crate::sources::{fingerprint, json};
use crate::{GenericClient, Result};

#[derive(Clone, Default)]
pub struct Headers {
    kept: BTreeMap<String, Kept>,
    sealed: Option<Vec<u8>>,
}

/// A header in the column `headers`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Kept {
    Clear(String),
    Sealed { fingerprint: String },
}

/// A header as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    Plain(&'a str),
    /// A secret, by its fingerprint.
    Secret(Cow<'a, str>),
}

/// A sealed value that none of the keys opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed header cannot be opened")]
pub struct Unopened;

/// Lists names and fingerprints only.
impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Headers {
    /// Seals the secrets among `values`, and each plain value that is a credential, for the subscription `id`.
    pub fn seal(sealer: &Sealer, id: SubscriptionId, values: BTreeMap<String, HeaderValue>) -> Self {
        let mut kept = BTreeMap::new();
        let mut secrets = BTreeMap::new();
        for (name, value) in values {
            let value = match value {
                HeaderValue::Plain(text) if !redact::is_secret_header(&name, &text) => Kept::Clear(text),
                HeaderValue::Plain(text) => secret(&name, &text, &mut secrets),
                HeaderValue::Secret(text) => secret(&name, text.expose_secret(), &mut secrets),
            };
            kept.insert(name, value);
        }
        let sealed = (!secrets.is_empty()).then(|| sealer.seal(id.as_uuid(), json(&secrets).to_string().as_bytes()));
        Self { kept, sealed }
    }

    /// All headers with their values.
    ///
    /// Fails if a sealed value does not open, or is missing; logs why.
    pub fn open(&self, sealer: &Sealer, id: SubscriptionId) -> Result<BTreeMap<String, HeaderValue>, Unopened> {
        let mut secrets = BTreeMap::new();
        if self.kept.values().any(|kept| matches!(kept, Kept::Sealed { .. })) {
            let sealed = self.sealed.as_deref().unwrap_or_default();
            let text = sealer.open_logged(id.as_uuid(), sealed).ok_or(Unopened)?;
            secrets = serde_json::from_str::<BTreeMap<String, String>>(text.expose_secret()).map_err(|_| Unopened)?;
        }
        let open = |(name, kept): (&String, &Kept)| {
            let value = match kept {
                Kept::Clear(text) if !redact::is_secret_header(name, text) => HeaderValue::Plain(text.clone()),
                Kept::Clear(text) => HeaderValue::Secret(text.clone().into()),
                Kept::Sealed { .. } => HeaderValue::Secret(secrets.remove(name).ok_or(Unopened)?.into()),
            };
            Ok((name.clone(), value))
        };
        self.kept.iter().map(open).collect()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kept.keys().map(String::as_str)
    }

    /// Each header by its name, without the value of a secret.
    pub fn shown(&self) -> impl Iterator<Item = (&str, Shown<'_>)> {
        self.kept.iter().map(|(name, kept)| {
            let shown = match kept {
                Kept::Clear(text) if !redact::is_secret_header(name, text) => Shown::Plain(text),
                Kept::Clear(text) => Shown::Secret(fingerprint(&text.clone().into()).into()),
                Kept::Sealed { fingerprint } => Shown::Secret(fingerprint.into()),
            };
            (name.as_str(), shown)
        })
    }

    /// Whether an older version stored one of the credentials in clear.
    fn has_clear_secret(&self) -> bool {
        let is_clear = |(name, kept): (&String, &Kept)| match kept {
            Kept::Clear(text) => redact::is_secret_header(name, text),
            Kept::Sealed { .. } => false,
        };
        self.kept.iter().any(is_clear)
    }

    /// For the columns `headers` and `sealed_headers`.
    pub(super) fn columns(&self) -> (Value, Option<&[u8]>) {
        (json(&self.kept), self.sealed.as_deref())
    }

    /// Reads both columns.
    pub(super) fn read(row: &Row) -> Result<Self> {
        let kept = readable("subscriptions.headers", serde_json::from_value(row.get("headers")).ok())?;
        Ok(Self { kept, sealed: row.get("sealed_headers") })
    }
}

fn secret(name: &str, text: &str, secrets: &mut BTreeMap<String, String>) -> Kept {
    secrets.insert(name.to_owned(), text.to_owned());
    Kept::Sealed { fingerprint: fingerprint(&text.to_owned().into()) }
}

/// Seals, of at most `limit` subscriptions behind `after`, the credentials that an older version stored in clear, and
/// takes all headers from those that are deleted. Gives how many rows it wrote and where the next page begins; `None`:
/// there are no more.
///
/// Leaves a row that changed meanwhile, and one whose headers cannot be read or do not open.
pub async fn seal_clear(
    db: &impl GenericClient,
    sealer: &Sealer,
    after: Uuid,
    limit: i64,
) -> Result<Option<(u64, Uuid)>> {
    let statement = db
        .prepare_cached(
            "SELECT id, headers, sealed_headers, deleted_at IS NOT NULL AS is_deleted FROM subscriptions
             WHERE id > $1 AND headers <> '{}' ORDER BY id LIMIT $2",
        )
        .await?;
    let rows = db.query(&statement, &[&after, &limit]).await?;
    let Some(last) = rows.last().map(|row| row.get("id")) else { return Ok(None) };

    let (mut ids, mut before, mut headers, mut sealed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let id = SubscriptionId::from_uuid(row.get("id"));
        let found = match Headers::read(row) {
            Ok(found) => found,
            Err(fault) => {
                let error = &fault as &dyn std::error::Error;
                error!(error, subscription.id = %id, "credentials may stay in clear, since the headers cannot be read");
                continue;
            }
        };
        let resealed = if row.get("is_deleted") {
            Headers::default()
        } else if !found.has_clear_secret() {
            continue;
        } else if let Ok(values) = found.open(sealer, id) {
            Headers::seal(sealer, id, values)
        } else {
            error!(subscription.id = %id, "a credential stays in clear, since the subscription's sealed headers do not open");
            continue;
        };
        let (new, blob) = resealed.columns();
        ids.push(*id.as_uuid());
        before.push(row.get::<_, Value>("headers"));
        headers.push(new);
        sealed.push(blob.map(<[u8]>::to_vec));
    }
    let statement = db
        .prepare_cached(
            "UPDATE subscriptions SET headers = new.headers, sealed_headers = new.sealed
             FROM unnest($1::uuid[], $2::jsonb[], $3::jsonb[], $4::bytea[]) AS new (id, before, headers, sealed)
             WHERE subscriptions.id = new.id AND subscriptions.headers = new.before",
        )
        .await?;
    let written = db.execute(&statement, &[&ids, &before, &headers, &sealed]).await?;
    Ok(Some((written, last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::parse(&"k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned().into()).unwrap()
    }

    fn id() -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::from_u128(7))
    }

    fn given() -> BTreeMap<String, HeaderValue> {
        let plain = |name: &str, text: &str| (name.to_owned(), HeaderValue::Plain(text.to_owned()));
        let marked = ("X-Marked".to_owned(), HeaderValue::Secret("s3cret-2".to_owned().into()));
        BTreeMap::from([plain("Authorization", "s3cret-1"), plain("X-Team", "billing"), marked])
    }

    fn exposed(headers: &BTreeMap<String, HeaderValue>) -> Vec<(&str, &str, bool)> {
        let parts = headers.iter();
        parts.map(|(name, value)| (name.as_str(), value.expose(), matches!(value, HeaderValue::Secret(_)))).collect()
    }

    const OPEN: [(&str, &str, bool); 3] =
        [("Authorization", "s3cret-1", true), ("X-Marked", "s3cret-2", true), ("X-Team", "billing", false)];

    #[test]
    fn credentials_and_marked_values_are_sealed_and_open_again() {
        let headers = Headers::seal(&sealer(), id(), given());
        assert_eq!(exposed(&headers.open(&sealer(), id()).unwrap()), OPEN);
        let (column, _) = headers.columns();
        assert!(!column.to_string().contains("s3cret") && !format!("{headers:?}").contains("s3cret"));
        assert_eq!(headers.open(&sealer(), SubscriptionId::from_uuid(Uuid::from_u128(8))).unwrap_err(), Unopened);
        assert_eq!(Headers { sealed: None, ..headers }.open(&sealer(), id()).unwrap_err(), Unopened);
    }

    #[test]
    fn a_credential_that_is_stored_in_clear_is_a_secret_all_the_same() {
        let kept = given().into_iter().map(|(name, value)| (name, Kept::Clear(value.expose().to_owned())));
        let headers = Headers { kept: kept.filter(|(name, _)| name != "X-Marked").collect(), sealed: None };
        assert!(headers.has_clear_secret());
        assert!(!format!("{headers:?}").contains("s3cret"));
        let sealed = Headers::seal(&sealer(), id(), headers.open(&sealer(), id()).unwrap());
        assert!(!sealed.has_clear_secret());
        assert_eq!(sealed.shown().collect::<Vec<_>>(), headers.shown().collect::<Vec<_>>(), "it is shown as before");
    }

    #[test]
    fn an_older_version_does_not_read_a_sealed_row() {
        let (column, _) = Headers::seal(&sealer(), id(), given()).columns();
        assert!(serde_json::from_value::<BTreeMap<String, String>>(column).is_err());
    }
}
