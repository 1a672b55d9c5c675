//! `posthorn event-types apply FILE`: the catalogue as a file says it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Api;
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
pub struct Apply {
    #[command(flatten)]
    api: Api,
    /// A YAML or JSON file with `event_types`: a list of `name`, `description`, `schema`, `sample`, `archived`.
    file: PathBuf,
    /// Show only.
    #[arg(long)]
    plan: bool,
    /// Delete what the file does not name.
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    api: Api,
    /// Archived ones as well.
    #[arg(long)]
    archived: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    event_types: Vec<Entry>,
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

/// What has to be done to one event type.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Create(Entry),
    /// With what differs, a line each.
    Update(Entry, Vec<String>),
    Delete(String),
}

impl EventTypes {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Apply(apply) => apply.run().await,
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

impl Apply {
    async fn run(self) -> Result<(), CliError> {
        let read = |source| CliError::File { path: self.file.clone(), source };
        let text = std::fs::read_to_string(&self.file).map_err(read)?;
        let wanted: Catalogue = serde_yaml_ng::from_str(&text).map_err(CliError::Catalogue)?;
        let done = keep(&self.api, &wanted.event_types, self.plan, self.prune).await?;
        let verb = if self.plan { "to change" } else { "changed" };
        say(format_args!("{} {verb}, {} as they are", done.changed, done.unchanged));
        Ok(())
    }
}

/// How many event types were changed, or would be, and how many were as wanted.
#[derive(Clone, Debug)]
pub struct Done {
    pub changed: usize,
    pub unchanged: usize,
    /// Those that the catalogue has beyond the wanted ones.
    pub beyond: Vec<String>,
}

/// Brings the catalogue in line with `wanted`, and tells of each change; only tells if it is a `plan`.
pub async fn keep(api: &Api, wanted: &[Entry], is_plan: bool, prune: bool) -> Result<Done, CliError> {
    let known = catalogue(api, true).await?;
    let unchanged = wanted.iter().filter(|entry| known.get(&entry.name) == Some(entry)).count();
    let steps = plan(&known, wanted, prune);
    for step in &steps {
        match step {
            Step::Create(entry) => say(format_args!("+ event type {}", entry.name)),
            Step::Update(entry, lines) => {
                say(format_args!("~ event type {}", entry.name));
                lines.iter().for_each(|line| say(format_args!("    {line}")));
            }
            Step::Delete(name) => say(format_args!("- event type {name}")),
        }
        if !is_plan {
            take(api, step).await?;
        }
    }
    let is_wanted = |name: &String| wanted.iter().any(|entry| entry.name == *name);
    let beyond = known.into_keys().filter(|name| !is_wanted(name)).collect();
    Ok(Done { changed: steps.len(), unchanged, beyond })
}

async fn take(api: &Api, step: &Step) -> Result<(), CliError> {
    match step {
        Step::Create(entry) | Step::Update(entry, _) => {
            let Entry { description, schema, sample, archived, .. } = entry;
            let body = json!({
                "description": description, "schema": schema, "sample": sample, "archived": archived,
            });
            api.put(&path(&entry.name), &body).await?;
        }
        Step::Delete(name) => api.delete(&path(name)).await?,
    }
    Ok(())
}

pub fn path(name: &str) -> String {
    format!("/v1/event-types/{}", name.replace('/', "%2F"))
}

/// The catalogue as it is, by name.
async fn catalogue(api: &Api, archived: bool) -> Result<BTreeMap<String, Entry>, CliError> {
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

/// What has to be done, in the order of the file; deletions last.
fn plan(known: &BTreeMap<String, Entry>, wanted: &[Entry], prune: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = wanted
        .iter()
        .filter_map(|entry| match known.get(&entry.name) {
            None => Some(Step::Create(entry.clone())),
            Some(before) if before == entry => None,
            Some(before) => Some(Step::Update(entry.clone(), differences(&value(before), &value(entry)))),
        })
        .collect();
    if prune {
        let named = |name: &String| wanted.iter().any(|entry| entry.name == *name);
        steps.extend(known.keys().filter(|name| !named(name)).cloned().map(Step::Delete));
    }
    steps
}

fn value(entry: &Entry) -> Value {
    serde_json::to_value(entry).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, schema: Value) -> Entry {
        Entry { name: name.into(), description: None, schema: Some(schema), sample: None, archived: false }
    }

    fn known(entries: &[Entry]) -> BTreeMap<String, Entry> {
        entries.iter().map(|entry| (entry.name.clone(), entry.clone())).collect()
    }

    #[test]
    fn a_plan_names_what_is_new_what_differs_and_on_demand_what_is_gone() {
        let same = entry("a.same", json!({}));
        let old = entry("b.changed", json!({ "required": ["id"], "type": "object" }));
        let new = entry("b.changed", json!({ "required": ["id", "at"], "type": "object" }));
        let gone = entry("c.gone", json!({}));
        let fresh = entry("d.fresh", json!({}));
        let before = known(&[same.clone(), old, gone]);
        let wanted = [same, new.clone(), fresh.clone()];
        let changed = Step::Update(new, vec![r#"/schema/required: ["id"] → ["id","at"]"#.to_owned()]);
        assert_eq!(plan(&before, &wanted, false), [changed.clone(), Step::Create(fresh.clone())]);
        assert_eq!(plan(&before, &wanted, true), [changed, Step::Create(fresh), Step::Delete("c.gone".into())]);
        assert_eq!(plan(&known(&wanted), &wanted, true), [], "applied, there is nothing left to do");
    }

    #[test]
    fn the_shipped_catalogues_can_be_read() {
        for file in ["messaging-crm.yaml", "compliance-saas.yaml"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/catalogues").join(file);
            let catalogue: Catalogue = serde_yaml_ng::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            assert!(catalogue.event_types.len() >= 11, "{file}");
            for entry in catalogue.event_types {
                let schema = posthorn_core::schema::Schema::parse(entry.schema.as_ref().unwrap());
                let schema = schema.unwrap_or_else(|error| panic!("{file}: {}: {error}", entry.name));
                assert_eq!(schema.check(entry.sample.as_ref().unwrap()), Ok(()), "{file}: {}", entry.name);
            }
        }
    }
}
