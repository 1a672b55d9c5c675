//! `posthorn event-types apply|list`: the catalogue of event types.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Api;
use crate::apply::Apply;
use crate::diff::differences;
use crate::error::CliError;
use crate::say;

#[derive(Debug, Subcommand)]
pub enum EventTypes {
    /// Show what a file would change in the catalogue, and change it; safe to repeat.
    Apply(Apply),
    /// List the catalogue.
    List(List),
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    api: Api,
    /// Archived ones as well.
    #[arg(long)]
    archived: bool,
}

/// One event type as a file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    schema: Option<Value>,
    #[serde(default)]
    sample: Option<Value>,
    #[serde(default)]
    archived: bool,
}

impl EventTypes {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Apply(apply) => apply.run_on_event_types().await,
            Self::List(list) => list.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        for entry in catalogue(&self.api, self.archived).await?.into_values() {
            say(format_args!("{:40} {}", entry.name, entry.description.unwrap_or_default()));
        }
        Ok(())
    }
}

impl Entry {
    /// Puts it into the catalogue, whole.
    pub async fn put(&self, api: &Api) -> Result<(), CliError> {
        let Self { description, schema, sample, archived, .. } = self;
        let body = json!({ "description": description, "schema": schema, "sample": sample, "archived": archived });
        api.put(&path(&self.name), &body).await.map(|_| ())
    }

    /// What differs in `after`, a line each.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let value = |entry: &Self| serde_json::to_value(entry).unwrap_or_default();
        differences(&value(self), &value(after))
    }
}

pub fn path(name: &str) -> String {
    format!("/v1/event-types/{}", name.replace('/', "%2F"))
}

/// The catalogue as it is, by name.
pub async fn catalogue(api: &Api, archived: bool) -> Result<BTreeMap<String, Entry>, CliError> {
    let mut known = BTreeMap::new();
    let archived = if archived { "true" } else { "false" };
    for mut entry in api.all("/v1/event-types", &[("archived", archived)]).await? {
        if let Some(fields) = entry.as_object_mut() {
            fields.retain(|name, _| !["created_at", "updated_at"].contains(&name.as_str()));
        }
        let entry: Entry = serde_json::from_value(entry)?;
        known.insert(entry.name.clone(), entry);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::file::File;

    #[test]
    fn what_differs_in_an_entry_is_told_by_its_pointer() {
        let entry =
            |schema| Entry { name: "a".into(), description: None, schema: Some(schema), sample: None, archived: false };
        let (old, new) = (entry(json!({ "required": ["id"] })), entry(json!({ "required": ["id", "at"] })));
        assert_eq!(old.differences(&new), [r#"/schema/required: ["id"] → ["id","at"]"#]);
        assert_eq!(old.differences(&old), [""; 0]);
    }

    #[test]
    fn the_shipped_catalogues_can_be_read() {
        for file in ["messaging-crm.yaml", "compliance-saas.yaml"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/catalogues").join(file);
            let event_types = File::read(&path).unwrap().event_types.unwrap();
            assert!(event_types.len() >= 11, "{file}");
            for entry in event_types {
                let schema = posthorn_core::schema::Schema::parse(entry.schema.as_ref().unwrap());
                let schema = schema.unwrap_or_else(|error| panic!("{file}: {}: {error}", entry.name));
                assert_eq!(schema.check_tree(entry.sample.as_ref().unwrap()), Ok(()), "{file}: {}", entry.name);
            }
        }
    }
}
