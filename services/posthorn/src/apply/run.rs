//! A run: one kind after the other is compared and brought in line.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::file::{Source, Subscription, Tenant};
use super::source;
use super::unmet::{Unmet, unmet};
use crate::api::Api;
use crate::error::CliError;
use crate::event_types::{self, Entry};
use crate::say;

/// The tenants by `external_id`; no id for one that a plan would make.
pub type Tenants = BTreeMap<String, Option<String>>;

/// What would be pruned.
struct Gone {
    label: String,
    path: String,
}

/// A run in progress.
pub struct Run<'a> {
    api: &'a Api,
    plan: bool,
    changed: usize,
    unchanged: usize,
    /// What the file's sections do not name.
    gone: Vec<Gone>,
}

impl<'a> Run<'a> {
    pub fn new(api: &'a Api, plan: bool) -> Self {
        Self { api, plan, changed: 0, unchanged: 0, gone: Vec::new() }
    }

    /// Each is its whole entry, and put whole.
    pub async fn event_types(&mut self, wanted: &[Entry]) -> Result<(), CliError> {
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
                entry.put(self.api).await.map_err(|error| error.of(format!("event type {}", entry.name)))?;
            }
        }
        for name in known.into_keys() {
            self.gone.push(Gone { label: format!("event type {name}"), path: event_types::path(&name) });
        }
        Ok(())
    }

    /// Brings the tenants in line, if the file has any; tells of all that there are.
    pub async fn tenants(&mut self, wanted: Option<&[Tenant]>) -> Result<Tenants, CliError> {
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

    pub async fn sources(&mut self, wanted: &[Source], tenants: &Tenants) -> Result<(), CliError> {
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

    /// Deletes what the sections do not name, the other way round: what is named by others last.
    pub async fn prune(&mut self) -> Result<(), CliError> {
        for Gone { label, path } in std::mem::take(&mut self.gone).into_iter().rev() {
            say(format_args!("- {label}"));
            self.changed += 1;
            if !self.plan {
                self.api.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Says how much was done, or would be.
    pub fn sum_up(&self) {
        let verb = if self.plan { "to change" } else { "changed" };
        say(format_args!("{} {verb}, {} as they are", self.changed, self.unchanged));
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

    pub async fn subscriptions(
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
            let paused = self.api.patch(&path_of("/v1/subscriptions", &made)?, &json!({ "state": state })).await;
            paused.map_err(|error| error.of(wanted.label()))?;
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
            let made = if self.plan {
                create.into()
            } else {
                self.api.post(collection, &create.into()).await.map_err(|error| error.of(label))?
            };
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
            self.api.patch(path, &body.into()).await.map_err(|error| error.of(label))?;
        }
        Ok(())
    }
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

pub fn no_tenant(external_id: &str) -> CliError {
    CliError::Apply(format!("there is no tenant with the external_id `{external_id}`"))
}

fn id_of(thing: &Value) -> Result<String, CliError> {
    thing["id"].as_str().map(str::to_owned).ok_or(CliError::Missing("an `id` in the answer"))
}

fn path_of(collection: &str, thing: &Value) -> Result<String, CliError> {
    Ok(format!("{collection}/{}", id_of(thing)?))
}
