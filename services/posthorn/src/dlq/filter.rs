use clap::Args;
use serde_json::{Map, Value};

/// Which dead letters are meant: those that fulfil all that is given.
#[derive(Clone, Debug, Default, Args)]
pub struct Filter {
    /// Only this tenant's.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only this subscription's.
    #[arg(long)]
    pub subscription: Option<String>,
    /// Only with this reason, such as `exhausted`.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only of these event types, such as `invoice.*,customer.created`.
    #[arg(long)]
    pub event_type: Option<String>,
    /// Only those that died then or later (RFC 3339).
    #[arg(long)]
    pub from: Option<String>,
    /// Only those that died earlier (RFC 3339).
    #[arg(long)]
    pub to: Option<String>,
}

impl Filter {
    /// What is given, by the names that the API has.
    pub fn given(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("tenant_id", &self.tenant),
            ("subscription_id", &self.subscription),
            ("reason", &self.reason),
            ("event_type", &self.event_type),
            ("from", &self.from),
            ("to", &self.to),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }

    pub fn body(&self) -> Value {
        let given = self.given().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}
