//! `posthorn event-types apply FILE`: the catalogue as a file says it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::Api;
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
struct Entry {
    name: String,
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
        let known = catalogue(&self.api, true).await?;
        let unchanged = wanted.event_types.iter().filter(|entry| known.get(&entry.name) == Some(entry)).count();
        let steps = plan(&known, &wanted.event_types, self.prune);
        for step in &steps {
            match step {
                Step::Create(entry) => say(format_args!("+ {}", entry.name)),
                Step::Update(entry, lines) => {
                    say(format_args!("~ {}", entry.name));
                    lines.iter().for_each(|line| say(format_args!("    {line}")));
                }
                Step::Delete(name) => say(format_args!("- {name}")),
            }
            if !self.plan {
                self.take(step).await?;
            }
        }
        let verb = if self.plan { "to change" } else { "changed" };
        say(format_args!("{} {verb}, {unchanged} as they are", steps.len()));
        Ok(())
    }

    async fn take(&self, step: &Step) -> Result<(), CliError> {
        match step {
            Step::Create(entry) | Step::Update(entry, _) => {
                let Entry { description, schema, sample, archived, .. } = entry;
                let body = json!({
                    "description": description, "schema": schema, "sample": sample, "archived": archived,
                });
                self.api.put(&path(&entry.name), &body).await?;
            }
            Step::Delete(name) => self.api.delete(&path(name)).await?,
        }
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("/v1/event-types/{}", name.replace('/', "%2F"))
}

/// The catalogue as it is, by name.
async fn catalogue(api: &Api, archived: bool) -> Result<BTreeMap<String, Entry>, CliError> {
    let mut known = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "200"), ("archived", if archived { "true" } else { "false" })];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = api.get("/v1/event-types", &query).await?;
        for entry in page["data"].as_array().into_iter().flatten() {
            let mut entry = entry.clone();
            if let Some(fields) = entry.as_object_mut() {
                fields.retain(|name, _| !["created_at", "updated_at"].contains(&name.as_str()));
            }
            let entry: Entry = serde_json::from_value(entry)?;
            known.insert(entry.name.clone(), entry);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(known),
        }
    }
}

/// What has to be done, in the order of the file; deletions last.
fn plan(known: &BTreeMap<String, Entry>, wanted: &[Entry], prune: bool) -> Vec<Step> {
    let mut steps: Vec<Step> = wanted
        .iter()
        .filter_map(|entry| match known.get(&entry.name) {
            None => Some(Step::Create(entry.clone())),
            Some(before) if before == entry => None,
            Some(before) => Some(Step::Update(entry.clone(), differences(before, entry))),
        })
        .collect();
    if prune {
        let named = |name: &String| wanted.iter().any(|entry| entry.name == *name);
        steps.extend(known.keys().filter(|name| !named(name)).cloned().map(Step::Delete));
    }
    steps
}

/// What differs, as `pointer: before → after`; the first twenty.
fn differences(before: &Entry, after: &Entry) -> Vec<String> {
    const SHOWN: usize = 20;
    let value = |entry: &Entry| serde_json::to_value(entry).unwrap_or_default();
    let mut lines = Vec::new();
    compare("", &value(before), &value(after), &mut lines);
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(pointer: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let absent = Value::Null;
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                compare(&below, old.get(name).unwrap_or(&absent), new.get(name).unwrap_or(&absent), lines);
            }
        }
        _ if before != after => lines.push(format!("{pointer}: {} → {}", short(before), short(after))),
        _ => {}
    }
}

fn short(value: &Value) -> String {
    const CHARACTERS: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= CHARACTERS {
        return text;
    }
    text.chars().take(CHARACTERS).chain(['…']).collect()
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
