//! `posthorn apply FILE`: a deployment's tenants, sources, event types and subscriptions as a file says
//! them.
//!
//! Each kind is compared with what the API shows and brought in line before the next one is looked at,
//! since later kinds name earlier ones. What the file does not name of a thing stays as it is. A run that
//! fails in the middle is simply run again.

pub mod file;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::diff::{differences, overlaid};
use crate::error::CliError;
use crate::event_types::{self, Entry};
use crate::say;

use file::{File, Source, Subscription, Tenant};

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    api: Api,
    /// A YAML or JSON file with any of `event_types`, `tenants`, `sources` and `subscriptions`.
    file: PathBuf,
    /// Show only.
    #[arg(long)]
    plan: bool,
    /// Delete what the file's sections do not name: of subscriptions those of its tenants.
    #[arg(long)]
    prune: bool,
}

/// The tenants by `external_id`; no id for one that a plan would make.
type Tenants = BTreeMap<String, Option<String>>;

/// What would be pruned.
struct Gone {
    label: String,
    path: String,
}

/// A run in progress.
struct Run<'a> {
    api: &'a Api,
    plan: bool,
    changed: usize,
    unchanged: usize,
    /// What the file's sections do not name.
    gone: Vec<Gone>,
}

impl Apply {
    pub async fn run(self) -> Result<(), CliError> {
        let file = File::read(&self.file)?;
        self.bring_in_line(&file).await
    }

    /// The same, for a file with nothing but a catalogue.
    pub async fn run_on_event_types(self) -> Result<(), CliError> {
        let file = File::read(&self.file)?;
        if file.tenants.is_some() || file.sources.is_some() || file.subscriptions.is_some() {
            let detail = "the file has more than event types: `posthorn apply` takes all of it";
            return Err(CliError::Apply(detail.to_owned()));
        }
        self.bring_in_line(&file).await
    }

    async fn bring_in_line(&self, file: &File) -> Result<(), CliError> {
        let mut run = Run { api: &self.api, plan: self.plan, changed: 0, unchanged: 0, gone: Vec::new() };
        if let Some(entries) = &file.event_types {
            run.event_types(entries).await?;
        }
        if file.tenants.is_some() || file.sources.is_some() || file.subscriptions.is_some() {
            let tenants = run.tenants(file.tenants.as_deref()).await?;
            if let Some(sources) = &file.sources {
                run.sources(sources, &tenants).await?;
            }
            if let Some(subscriptions) = &file.subscriptions {
                let named = file.tenants.iter().flatten().map(|tenant| tenant.external_id.as_str());
                run.subscriptions(subscriptions, named, &tenants).await?;
            }
        }
        if self.prune {
            // The other way round: what is named by others last.
            for Gone { label, path } in std::mem::take(&mut run.gone).into_iter().rev() {
                run.delete(&label, &path).await?;
            }
        }
        let verb = if self.plan { "to change" } else { "changed" };
        say(format_args!("{} {verb}, {} as they are", run.changed, run.unchanged));
        Ok(())
    }
}

impl Run<'_> {
    /// Each is its whole entry, and put whole.
    async fn event_types(&mut self, wanted: &[Entry]) -> Result<(), CliError> {
        let mut known = event_types::catalogue(self.api, true).await?;
        for entry in wanted {
            match known.remove(&entry.name) {
                Some(before) if before == *entry => {
                    self.unchanged += 1;
                    continue;
                }
                Some(before) => {
                    say(format_args!("~ event type {}", entry.name));
                    before.differences(entry).iter().for_each(|line| say(format_args!("    {line}")));
                }
                None => say(format_args!("+ event type {}", entry.name)),
            }
            self.changed += 1;
            if !self.plan {
                entry.put(self.api).await?;
            }
        }
        for name in known.into_keys() {
            self.gone.push(Gone { label: format!("event type {name}"), path: event_types::path(&name) });
        }
        Ok(())
    }

    /// Brings the tenants in line, if the file has any; tells of all that there are.
    async fn tenants(&mut self, wanted: Option<&[Tenant]>) -> Result<Tenants, CliError> {
        let mut tenants = Tenants::new();
        let mut known = BTreeMap::new();
        for tenant in self.api.all("/v1/tenants", &[]).await? {
            let Some(external_id) = tenant["external_id"].as_str().map(str::to_owned) else { continue };
            tenants.insert(external_id.clone(), Some(id_of(&tenant)?));
            known.insert(external_id, tenant);
        }
        let Some(wanted) = wanted else { return Ok(tenants) };
        for Tenant { external_id, name } in wanted {
            let fields = Map::from_iter([("name".to_owned(), json!(name))]);
            let current = known.remove(external_id);
            let mut create = fields.clone();
            create.insert("external_id".to_owned(), json!(external_id));
            let made = self.keep(&format!("tenant {external_id}"), "/v1/tenants", current, fields, create).await?;
            if let Some(made) = made {
                tenants.insert(external_id.clone(), made["id"].as_str().map(str::to_owned));
            }
        }
        for (external_id, tenant) in known {
            let label = format!("tenant {external_id}, and all that belongs to it");
            self.gone.push(Gone { label, path: path_of("/v1/tenants", &tenant)? });
        }
        Ok(tenants)
    }

    async fn sources(&mut self, wanted: &[Source], tenants: &Tenants) -> Result<(), CliError> {
        let mut known = BTreeMap::new();
        for source in self.api.all("/v1/sources", &[]).await? {
            if let Some(slug) = source["slug"].as_str() {
                known.insert(slug.to_owned(), source);
            }
        }
        for source in wanted {
            let label = format!("source {}", source.slug);
            let fields = source::fields(source, tenants)?;
            let mut create = fields.clone();
            create.insert("slug".to_owned(), json!(source.slug));
            create.insert("provider".to_owned(), json!(source.provider));
            let current = known.remove(&source.slug);
            if current.as_ref().is_some_and(|current| current["provider"] != source.provider.as_str()) {
                let detail = format!("the {label} has another provider, which cannot be changed: delete it first");
                return Err(CliError::Apply(detail));
            }
            match current {
                Some(current) => self.keep_source(&label, &current, source, fields).await?,
                None => {
                    self.keep(&label, "/v1/sources", None, fields, create).await?;
                }
            }
        }
        for (slug, source) in known {
            self.gone.push(Gone { label: format!("source {slug}"), path: path_of("/v1/sources", &source)? });
        }
        Ok(())
    }

    /// Secrets are told apart by their fingerprints, and a configuration is replaced whole.
    async fn keep_source(
        &mut self,
        label: &str,
        current: &Value,
        wanted: &Source,
        mut fields: Map<String, Value>,
    ) -> Result<(), CliError> {
        let config = fields.remove("config");
        let mut unmet = unmet(current, &fields);
        if let Some(config) = config {
            let differ = source::config_differences(current, &wanted.provider, &config)?;
            if !differ.is_empty() {
                unmet.lines.extend(differ);
                unmet.body.insert("config".to_owned(), config);
            }
        }
        self.update(label, &path_of("/v1/sources", current)?, unmet).await
    }

    async fn subscriptions(
        &mut self,
        wanted: &[Subscription],
        named: impl Iterator<Item = &str>,
        tenants: &Tenants,
    ) -> Result<(), CliError> {
        // A tenant that the file names may have none left.
        let mut of_tenants: BTreeMap<&str, Vec<&Subscription>> = named.map(|tenant| (tenant, Vec::new())).collect();
        for subscription in wanted {
            of_tenants.entry(&subscription.tenant).or_default().push(subscription);
        }
        for (tenant, wanted) in of_tenants {
            let id = tenants.get(tenant).ok_or_else(|| no_tenant(tenant))?;
            let mut known = match id {
                Some(id) => self.api.all("/v1/subscriptions", &[("tenant_id", id)]).await?,
                None => Vec::new(),
            };
            for subscription in wanted {
                let current = take_named(&mut known, subscription)?;
                self.keep_subscription(subscription, id.as_deref(), current).await?;
            }
            for subscription in known {
                let name = subscription["name"].as_str().unwrap_or("(without a name)");
                let label = format!("subscription {tenant}/{name}");
                self.gone.push(Gone { label, path: path_of("/v1/subscriptions", &subscription)? });
            }
        }
        Ok(())
    }

    async fn keep_subscription(
        &mut self,
        wanted: &Subscription,
        tenant: Option<&str>,
        current: Option<Value>,
    ) -> Result<(), CliError> {
        let mut fields = wanted.fields.clone();
        // Asked for when it is made; changed by `rotate-secret`.
        let secret = fields.remove("secret");
        let mut create = fields.clone();
        let state = create.remove("state");
        create.insert("name".to_owned(), json!(wanted.name));
        create.insert("tenant_id".to_owned(), json!(tenant));
        let shows_secret = secret.is_none();
        create.extend(secret.map(|secret| ("secret".to_owned(), secret)));
        let Some(made) = self.keep(&wanted.label(), "/v1/subscriptions", current, fields, create).await? else {
            return Ok(());
        };
        if shows_secret && let Some(secret) = made["secret"].as_str() {
            say(format_args!("    its secret, shown only now: {secret}"));
        }
        if let Some(state) = state.filter(|state| *state != "active")
            && !self.plan
        {
            self.api.patch(&path_of("/v1/subscriptions", &made)?, &json!({ "state": state })).await?;
        }
        Ok(())
    }

    /// Makes a thing from `create`, or changes of the `current` one what differs from `fields`. Gives what
    /// was made; of a plan, what would be.
    async fn keep(
        &mut self,
        label: &str,
        collection: &str,
        current: Option<Value>,
        fields: Map<String, Value>,
        create: Map<String, Value>,
    ) -> Result<Option<Value>, CliError> {
        let Some(current) = current else {
            say(format_args!("+ {label}"));
            self.changed += 1;
            let made = if self.plan { create.into() } else { self.api.post(collection, &create.into()).await? };
            return Ok(Some(made));
        };
        self.update(label, &path_of(collection, &current)?, unmet(&current, &fields)).await?;
        Ok(None)
    }

    async fn update(&mut self, label: &str, path: &str, unmet: Unmet) -> Result<(), CliError> {
        let Unmet { lines, body } = unmet;
        if lines.is_empty() {
            self.unchanged += 1;
            return Ok(());
        }
        say(format_args!("~ {label}"));
        lines.iter().for_each(|line| say(format_args!("    {line}")));
        self.changed += 1;
        if !self.plan {
            self.api.patch(path, &body.into()).await?;
        }
        Ok(())
    }

    async fn delete(&mut self, label: &str, path: &str) -> Result<(), CliError> {
        say(format_args!("- {label}"));
        self.changed += 1;
        if self.plan { Ok(()) } else { self.api.delete(path).await }
    }
}

/// What `current` has otherwise than `wanted`, and the fields with which it has not: whole, since the API replaces
/// a field whole and the file may name a part of it.
fn unmet(current: &Value, wanted: &Map<String, Value>) -> Unmet {
    let mut unmet = Unmet::default();
    for (name, value) in wanted {
        let now = &current[name.as_str()];
        // A map of the client's own is what it is, and not a part of one.
        let merged = if name == "headers" { value.clone() } else { overlaid(now, value) };
        let field = |value: &Value| Value::from(Map::from_iter([(name.clone(), value.clone())]));
        let lines = differences(&field(now), &field(&merged));
        if !lines.is_empty() {
            unmet.lines.extend(lines);
            unmet.body.insert(name.clone(), merged);
        }
    }
    unmet
}

/// What has to be changed of a thing.
#[derive(Debug, Default)]
struct Unmet {
    /// A line for each difference.
    lines: Vec<String>,
    /// The request's.
    body: Map<String, Value>,
}

/// Takes the subscription of that name out of its tenant's.
fn take_named(known: &mut Vec<Value>, wanted: &Subscription) -> Result<Option<Value>, CliError> {
    let is_named = |subscription: &Value| subscription["name"] == wanted.name.as_str();
    let found = known.iter().position(is_named).map(|index| known.remove(index));
    if found.is_some() && known.iter().any(is_named) {
        let detail = format!("there are several of the name {}: give each its own", wanted.label());
        return Err(CliError::Apply(detail));
    }
    Ok(found)
}

fn no_tenant(external_id: &str) -> CliError {
    CliError::Apply(format!("there is no tenant with the external_id `{external_id}`"))
}

fn id_of(thing: &Value) -> Result<String, CliError> {
    thing["id"].as_str().map(str::to_owned).ok_or(CliError::Missing("an `id` in the answer"))
}

fn path_of(collection: &str, thing: &Value) -> Result<String, CliError> {
    Ok(format!("{collection}/{}", id_of(thing)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fields: Value) -> Map<String, Value> {
        fields.as_object().unwrap().clone()
    }

    #[test]
    fn only_what_the_file_names_is_compared_and_headers_are_not_shown() {
        let current = json!({
            "id": "sub_1", "timeout_seconds": 10, "rate_limit": { "per_second": 50.0 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [60], "permanent_statuses": [404] },
            "headers": { "x-key": "old", "x-other": "1" },
        });
        let same = json!({
            "timeout_seconds": 10, "rate_limit": { "per_second": 50 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [60] }, "headers": { "x-key": "old", "x-other": "1" },
        });
        assert_eq!(unmet(&current, &wanted(same)).lines, [""; 0]);
        let other = json!({
            "timeout_seconds": 5, "headers": { "x-key": "old" }, "rate_limit": null,
            "retry_policy": { "kind": "schedule", "delays_seconds": [5] },
        });
        let unmet = unmet(&current, &wanted(other));
        let told = [
            "/headers/x-other: changed",
            "/rate_limit/per_second: 50.0 → null",
            "/retry_policy/delays_seconds: [60] → [5]",
            "/timeout_seconds: 10 → 5",
        ];
        assert_eq!(unmet.lines, told);
        let policy = json!({ "kind": "schedule", "delays_seconds": [5], "permanent_statuses": [404] });
        assert_eq!(unmet.body["retry_policy"], policy, "the API replaces it whole");
    }
}
