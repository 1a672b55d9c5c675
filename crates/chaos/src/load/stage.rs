//! The stage: tenants, sources and subscriptions, and which kinds of events there are.
//!
//! Which subscriptions must get an event stands here, written down when they are made; nothing of it is ever asked
//! of Posthorn.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{Api, id_in};
use crate::error::{Result, unexpected};
use crate::load::nature::Nature;
use crate::load::provider::{Door, Keys};
use crate::receiver::Endpoint;

/// Delays of the ordinary retry policy, in seconds.
const DELAYS: &[u32] = &[1, 2, 4, 8, 16];
/// Of the one that is used up.
const FEW_DELAYS: &[u32] = &[1, 1];
pub const TIMEOUT_SECONDS: u32 = 3;

/// Subscriptions made at the same time.
const AT_ONCE: usize = 16;

/// A subscription as the ledgers know it.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: Uuid,
    pub nature: Nature,
    /// Attempts until its schedule is used up.
    pub attempts: u32,
}

/// A kind of event: who sends it, to whom, and who must get it.
#[derive(Clone, Debug)]
pub struct Flavour {
    pub name: String,
    /// How often it occurs, beside the others.
    pub weight: u32,
    pub door: Door,
    pub event_type: &'static str,
    /// `external_id` of the tenant, where the request names it.
    pub tenant: String,
    pub expected: Arc<[u16]>,
    /// Bytes of a body: at least, and at most.
    pub sizes: (u32, u32),
}

#[derive(Debug)]
pub struct Stage {
    pub flavours: Vec<Flavour>,
    pub subscriptions: Vec<Subscription>,
    pub keys: Keys,
    /// The flavour by which the time until recovery is measured.
    pub probe: u8,
    /// The one whose deliveries die at once.
    pub strict: u8,
    by_id: HashMap<Uuid, u16>,
}

/// What a subscription is made of.
#[derive(Clone, Debug)]
struct Draft {
    tenant: &'static str,
    nature: Nature,
    patterns: &'static str,
    raw: bool,
    ordered: bool,
    rate: Option<u32>,
}

const TENANTS: &[&str] = &[
    "quiet", "single-0", "single-1", "single-2", "single-3", "single-4", "single-5", "ten-0", "ten-1", "crowd",
    "ordered", "rated", "strict", "failing", "large", "probe",
];

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
/// Event bodies have 0.1 KiB at least.
const SMALLEST: u32 = 102;

impl Stage {
    /// The subscriptions' behaviour, which the receiver needs before they can be made.
    pub fn endpoints() -> Vec<Endpoint> {
        drafts().iter().map(|draft| Endpoint { nature: draft.nature, raw: draft.raw }).collect()
    }

    /// Indices of subscriptions whose first attempt nothing but Posthorn can hold up.
    pub fn prompt() -> HashSet<u16> {
        let prompt = |draft: &Draft| draft.nature.is_prompt() && !draft.ordered && draft.rate.is_none();
        (0u16..).zip(drafts()).filter(|(_, draft)| prompt(draft)).map(|(index, _)| index).collect()
    }

    /// Makes all of it, with receivers at `port`.
    pub async fn build(api: &Api, port: u16, keys: Keys) -> Result<Self> {
        let mut tenants: HashMap<&str, String> = HashMap::new();
        for name in TENANTS {
            let made = api.post("/v1/tenants", &json!({ "name": name, "external_id": name })).await?;
            tenants.insert(name, made["id"].as_str().unwrap_or_default().to_owned());
        }
        for source in keys.sources(&tenants) {
            api.post("/v1/sources", &source).await?;
        }
        let drafts = drafts();
        let subscriptions = stream::iter((0u16..).zip(drafts.clone()))
            .map(|(index, draft)| {
                let request = draft.request(&tenants, port, index);
                async move {
                    let made = api.post("/v1/subscriptions", &request).await?;
                    let id = id_in(&made, "id").ok_or_else(|| unexpected("a subscription without an id"))?;
                    let attempts = 1 + u32::try_from(draft.delays().len()).unwrap_or_default();
                    Ok::<_, crate::error::ChaosError>(Subscription { id, nature: draft.nature, attempts })
                }
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let by_id = (0u16..).zip(&subscriptions).map(|(index, subscription)| (subscription.id, index)).collect();
        let flavours = flavours(&drafts);
        let place = |name: &str| flavours.iter().position(|flavour| flavour.name == name).unwrap_or_default();
        let index = |name: &str| u8::try_from(place(name)).unwrap_or_default();
        let (probe, strict) = (index("probe"), index("strict"));
        Ok(Self { flavours, subscriptions, keys, probe, strict, by_id })
    }

    pub fn index_of(&self, subscription: Uuid) -> Option<u16> {
        self.by_id.get(&subscription).copied()
    }

    pub fn flavour(&self, index: u8) -> &Flavour {
        &self.flavours[usize::from(index)]
    }
}

impl Draft {
    fn delays(&self) -> &'static [u32] {
        if self.nature == Nature::Failing { FEW_DELAYS } else { DELAYS }
    }

    fn request(&self, tenants: &HashMap<&str, String>, port: u16, index: u16) -> Value {
        let permanent: &[u16] = if self.nature == Nature::Strict { &[422] } else { &[] };
        json!({
            "tenant_id": tenants.get(self.tenant),
            "url": format!("http://127.0.0.1:{port}/{index}"),
            "event_types": [self.patterns],
            "retry_policy": { "kind": "schedule", "delays_seconds": self.delays(), "permanent_statuses": permanent },
            "timeout_seconds": TIMEOUT_SECONDS,
            "payload_format": if self.raw { "raw" } else { "standard" },
            "max_in_flight": if self.nature == Nature::Strict { 50 } else { 8 },
            "ordered": self.ordered,
            "rate_limit": self.rate.map(|rate| json!({ "per_second": rate })),
        })
    }
}

/// Every subscription, in the order of their indices.
fn drafts() -> Vec<Draft> {
    let ordinary =
        |tenant, patterns| Draft { tenant, nature: Nature::Flaky, patterns, raw: false, ordered: false, rate: None };
    let mut drafts = vec![ordinary("quiet", "noise.*")];
    for tenant in ["single-0", "single-1", "single-2", "single-3", "single-4"] {
        drafts.push(Draft { raw: true, ..ordinary(tenant, "single.*") });
    }
    drafts.push(ordinary("single-5", "message.*"));
    drafts.push(Draft { ordered: true, ..ordinary("ordered", "ordered.*") });
    drafts.push(Draft { rate: Some(5), ..ordinary("rated", "rated.*") });
    drafts.push(Draft { nature: Nature::Strict, ..ordinary("strict", "strict.*") });
    drafts.push(Draft { nature: Nature::Failing, ..ordinary("failing", "failing.*") });
    drafts.push(ordinary("large", "large.*"));
    drafts.push(Draft { nature: Nature::Steady, ..ordinary("probe", "probe.*") });
    // Of a broadcast: ten tenants listen.
    for tenant in TENANTS.iter().take(10) {
        drafts.push(ordinary(tenant, "release.*"));
    }
    for tenant in ["ten-0", "ten-1"] {
        drafts.extend(std::iter::repeat_n(ordinary(tenant, "ten.*"), 10));
    }
    drafts.extend(std::iter::repeat_n(ordinary("crowd", "crowd.*"), 500));
    drafts
}

fn flavours(drafts: &[Draft]) -> Vec<Flavour> {
    // A pattern here always ends in `.*`, and no two tenants share one but for the broadcast.
    let listeners = |tenant: Option<&str>, event_type: &str| -> Arc<[u16]> {
        let wants = |draft: &Draft| {
            tenant.is_none_or(|tenant| tenant == draft.tenant)
                && event_type.starts_with(draft.patterns.trim_end_matches('*'))
        };
        (0u16..).zip(drafts).filter(|(_, draft)| wants(draft)).map(|(index, _)| index).collect()
    };
    let flavour = |name: &str, weight, door, event_type, tenant: &str, largest| Flavour {
        name: name.to_owned(),
        weight,
        door,
        event_type,
        tenant: tenant.to_owned(),
        expected: listeners((door != Door::Github).then_some(tenant), event_type),
        sizes: (SMALLEST, largest),
    };
    let mut flavours = vec![
        flavour("nobody", 80, Door::Stripe, "silence.kept", "quiet", 8 * KIB),
        flavour("unrouted", 20, Door::Stripe, "single.paid", "nobody-at-all", 8 * KIB),
        flavour("single", 100, Door::Internal, "single.made", "single-3", MIB),
        flavour("single", 100, Door::Standard, "single.sent", "single-4", MIB),
        flavour("single", 100, Door::Twilio, "message.status.delivered", "single-5", 64 * KIB),
        flavour("ten", 60, Door::Stripe, "ten.paid", "ten-0", 64 * KIB),
        flavour("ten", 60, Door::Internal, "ten.made", "ten-1", 64 * KIB),
        flavour("crowd", 3, Door::Internal, "crowd.called", "crowd", KIB),
        flavour("broadcast", 10, Door::Github, "release.published", "", 8 * KIB),
        flavour("ordered", 20, Door::Internal, "ordered.made", "ordered", 8 * KIB),
        flavour("rated", 40, Door::Stripe, "rated.paid", "rated", 8 * KIB),
        flavour("strict", 30, Door::Internal, "strict.made", "strict", 8 * KIB),
        flavour("failing", 20, Door::Stripe, "failing.paid", "failing", 8 * KIB),
        Flavour { sizes: (128 * KIB, MIB), ..flavour("large", 5, Door::Stripe, "large.paid", "large", MIB) },
        flavour("probe", 0, Door::Internal, "probe.sent", "probe", KIB),
    ];
    for tenant in ["single-0", "single-1", "single-2"] {
        flavours.push(flavour("single", 115, Door::Stripe, "single.paid", tenant, MIB));
    }
    flavours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fan_outs_of_none_one_ten_and_five_hundred_occur() {
        let flavours = flavours(&drafts());
        let fan_out = |name: &str| {
            let found = flavours.iter().find(|flavour| flavour.name == name);
            found.map(|flavour| flavour.expected.len()).unwrap()
        };
        assert_eq!(fan_out("nobody"), 0);
        assert_eq!(fan_out("unrouted"), 0);
        assert_eq!(fan_out("ten"), 10);
        assert_eq!(fan_out("broadcast"), 10);
        assert_eq!(fan_out("crowd"), 500);
        for name in ["single", "ordered", "rated", "strict", "failing", "large", "probe"] {
            assert_eq!(fan_out(name), 1, "{name}");
        }
    }
}
