//! The catalogue of event types.

use jiff::Timestamp;
use posthorn_core::event_type::EventType;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::readable;
use crate::page::Page;
use crate::{GenericClient, Result};

#[derive(Clone, Debug)]
pub struct CatalogueEntry {
    /// Its place in lists; the name is what it is known by.
    pub id: Uuid,
    pub name: EventType,
    pub description: Option<String>,
    /// JSON Schema of the payload.
    pub schema: Option<Value>,
    pub sample: Option<Value>,
    /// Kept for what refers to it, and not offered any more.
    pub archived: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const COLUMNS: &str = "id, name, description, schema, sample, archived, created_at, updated_at";

/// Puts `entry` in the place of the one with its name, which keeps its id and age. True if there was
/// none.
pub async fn put(db: &impl GenericClient, entry: &CatalogueEntry) -> Result<(CatalogueEntry, bool)> {
    let sql = format!(
        "INSERT INTO event_types ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (name) DO UPDATE SET description = $3, schema = $4, sample = $5, archived = $6, updated_at = $8
         RETURNING {COLUMNS}, xmax = 0 AS is_new"
    );
    let statement = db.prepare_cached(&sql).await?;
    let row = db
        .query_one(
            &statement,
            &[
                &entry.id,
                &entry.name.as_str(),
                &entry.description,
                &entry.schema,
                &entry.sample,
                &entry.archived,
                &entry.created_at,
                &entry.updated_at,
            ],
        )
        .await?;
    Ok((read(&row)?, row.get("is_new")))
}

pub async fn find(db: &impl GenericClient, name: &EventType) -> Result<Option<CatalogueEntry>> {
    let statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM event_types WHERE name = $1")).await?;
    db.query_opt(&statement, &[&name.as_str()]).await?.as_ref().map(read).transpose()
}

/// Those that are archived come along only when asked for.
pub async fn list(db: &impl GenericClient, with_archived: bool, page: Page) -> Result<Vec<CatalogueEntry>> {
    let sql =
        format!("SELECT {COLUMNS} FROM event_types WHERE id < $1 AND ($2 OR NOT archived) ORDER BY id DESC LIMIT $3");
    let statement = db.prepare_cached(&sql).await?;
    db.query(&statement, &[&page.before(), &with_archived, &page.fetch()]).await?.iter().map(read).collect()
}

/// False if there is no such entry.
pub async fn delete(db: &impl GenericClient, name: &EventType) -> Result<bool> {
    let statement = db.prepare_cached("DELETE FROM event_types WHERE name = $1").await?;
    Ok(db.execute(&statement, &[&name.as_str()]).await? > 0)
}

/// Every schema by the name of its event type, for a snapshot.
pub async fn schemas(db: &impl GenericClient) -> Result<Vec<(String, Value)>> {
    let statement = db.prepare_cached("SELECT name, schema FROM event_types WHERE schema IS NOT NULL").await?;
    Ok(db.query(&statement, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn read(row: &Row) -> Result<CatalogueEntry> {
    Ok(CatalogueEntry {
        id: row.get("id"),
        name: readable("event_types.name", EventType::parse(row.get("name")).ok())?,
        description: row.get("description"),
        schema: row.get("schema"),
        sample: row.get("sample"),
        archived: row.get("archived"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}
