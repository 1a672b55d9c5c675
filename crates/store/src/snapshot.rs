//! The subscriptions in memory: a snapshot that follows the database.
//!
//! A change reaches it through a notification, within milliseconds; everything is loaded again when
//! the connection for notifications was lost, and every so often.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::HeldReason;
use posthorn_core::endpoint::EndpointUrl;
use posthorn_core::event_type::Pattern;
use posthorn_core::hold::Hold;
use posthorn_core::id::{SubscriptionId, TenantId};
use posthorn_core::operational::Kind;
use posthorn_core::retry::RetryPolicy;
use posthorn_core::subscription::{self, Subscription};
use posthorn_core::tls::{EndpointTls, Identity};
use secrecy::SecretString;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::changes::{self, Change};
use crate::error::readable;
use crate::seal::Sealer;
use crate::{Error, GenericClient, Result, Store, subscriptions};

/// A subscription with what signs for it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub subscription: Subscription,
    /// What signs, and until when: newest first.
    pub secrets: Vec<(SecretString, Option<Timestamp>)>,
    /// Its breaker is closed: deliveries may go.
    pub flows: bool,
    /// Its endpoint asked for time.
    pub hold: Option<Hold>,
    /// All that was sealed of it opens.
    pub opens: bool,
}

impl Entry {
    /// Whether a new delivery has to wait in PostgreSQL before anything else.
    pub fn holds(&self, now: Timestamp) -> Option<HeldReason> {
        match self.subscription.holds() {
            None | Some(HeldReason::Rate | HeldReason::Order) if !self.flows => Some(HeldReason::Breaker),
            None if self.hold.is_some_and(|hold| hold.holds(now)) => Some(HeldReason::Rate),
            holds => holds,
        }
    }

    /// What signs now: those whose time is over stay in memory until the next load.
    pub fn signing(&self, now: Timestamp) -> Vec<SecretString> {
        let good = self.secrets.iter().filter(|(_, until)| until.is_none_or(|until| until > now));
        good.map(|(secret, _)| secret.clone()).collect()
    }

    /// Whether a secret signs now, and the client certificate and all sealed headers open.
    pub fn can_sign(&self, now: Timestamp) -> bool {
        self.opens && self.secrets.iter().any(|(_, until)| until.is_none_or(|until| until > now))
    }
}

impl std::ops::Deref for Entry {
    type Target = Subscription;

    fn deref(&self) -> &Subscription {
        &self.subscription
    }
}

/// All subscriptions that are not deleted. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<SubscriptionId, Arc<Entry>>,
    /// In the order of their ids.
    by_tenant: HashMap<TenantId, Vec<Arc<Entry>>>,
}

impl Subscriptions {
    pub fn find(&self, id: SubscriptionId) -> Option<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// A tenant's, in the order of their ids.
    pub fn of_tenant(&self, tenant: TenantId) -> Vec<Arc<Entry>> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.by_tenant.get(&tenant).cloned().unwrap_or_default()
    }

    /// Everybody's, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = state.by_id.values().cloned().collect();
        all.sort_by_key(|entry| entry.id);
        all
    }

    /// Whether a tenant has asked to hear of this.
    pub fn want(&self, tenant: TenantId, notice: Kind) -> bool {
        let event_type = notice.event_type();
        let asked = |entry: &Arc<Entry>| entry.event_types.iter().any(|pattern| pattern.matches(&event_type));
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_tenant
            .get(&tenant)
            .is_some_and(|all| all.iter().any(asked))
    }

    /// Reads one again, for a caller that hears of it before the snapshot does. `None`: it is deleted.
    pub async fn fetch(
        &self,
        db: &impl GenericClient,
        sealer: &Sealer,
        id: SubscriptionId,
    ) -> Result<Option<Arc<Entry>>> {
        let entry = load(db, sealer, Some(id)).await?.pop().map(Arc::new);
        self.put(id, entry.clone());
        Ok(entry)
    }

    /// Follows the database until `stop`. `loaded` becomes true after the first complete load.
    pub async fn follow(self, store: Store, reload: Duration, loaded: watch::Sender<bool>, stop: CancellationToken) {
        let (news, mut told) = mpsc::channel(4096);
        let watching = changes::watch(store.clone(), reload, news, stop.clone());
        let applying = async {
            while let Some(change) = told.recv().await {
                let applied = match change {
                    Change::Everything => self.load_all(&store).await.map(|()| {
                        loaded.send_replace(true);
                    }),
                    Change::Subscription(id) => self.load_one(&store, SubscriptionId::from_uuid(id)).await,
                    Change::Source(_) | Change::EventType(_) => Ok(()),
                };
                if let Err(error) = applied {
                    // The next complete load mends it.
                    warn!(error = &error as &dyn std::error::Error, "a change of subscriptions could not be read");
                }
            }
        };
        tokio::join!(watching, stop.run_until_cancelled(applying));
    }

    async fn load_one(&self, store: &Store, id: SubscriptionId) -> Result<()> {
        self.fetch(&store.client().await?, store.sealer(), id).await.map(|_| ())
    }

    async fn load_all(&self, store: &Store) -> Result<()> {
        let mut state = State::default();
        for entry in load(&store.client().await?, store.sealer(), None).await? {
            let entry = Arc::new(entry);
            state.by_id.insert(entry.id, Arc::clone(&entry));
            state.by_tenant.entry(entry.tenant_id).or_default().push(entry);
        }
        for entries in state.by_tenant.values_mut() {
            entries.sort_by_key(|entry| entry.id);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    fn put(&self, id: SubscriptionId, entry: Option<Arc<Entry>>) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = state.by_id.remove(&id)
            && let Some(entries) = state.by_tenant.get_mut(&old.tenant_id)
        {
            entries.retain(|entry| entry.id != id);
        }
        if let Some(entry) = entry {
            state.by_id.insert(id, Arc::clone(&entry));
            let entries = state.by_tenant.entry(entry.tenant_id).or_default();
            let place = entries.partition_point(|other| other.id < id);
            entries.insert(place, entry);
        }
    }
}

async fn load(db: &impl GenericClient, sealer: &Sealer, id: Option<SubscriptionId>) -> Result<Vec<Entry>> {
    let mut secrets: HashMap<SubscriptionId, Vec<(SecretString, Option<Timestamp>)>> = HashMap::new();
    for (id, secret, expires_at) in subscriptions::secrets(db, sealer, id).await? {
        secrets.entry(id).or_default().push((secret, expires_at));
    }
    let found = subscriptions::snapshot(db, id).await?;
    Ok(found.into_iter().filter_map(|known| read(known, &mut secrets, sealer)).collect())
}

/// A row as dispatch and delivery know it. One that cannot be read holds its deliveries, as if it were paused: a limit
/// that cannot be read is never taken for none. Never `None`, since the URL of an unreadable one is a constant.
fn read(
    mut known: subscriptions::Known,
    secrets: &mut HashMap<SubscriptionId, Vec<(SecretString, Option<Timestamp>)>>,
    sealer: &Sealer,
) -> Option<Entry> {
    let secrets = secrets.remove(&known.id).unwrap_or_default();
    let whole = std::mem::replace(&mut known.whole, Err(Error::Corrupt { what: "subscriptions" }));
    match whole.and_then(|(row, breaker, hold)| entry(row, secrets, (breaker.is_closed(), hold), sealer)) {
        Ok(entry) => Some(entry),
        Err(fault) => {
            error!(
                error = &fault as &dyn std::error::Error,
                subscription.id = %known.id,
                "a subscription cannot be read, and its deliveries are held: {fault}"
            );
            unreadable(known)
        }
    }
}

/// Written by the API, which parses every part first.
fn entry(
    row: subscriptions::Subscription,
    secrets: Vec<(SecretString, Option<Timestamp>)>,
    (flows, hold): (bool, Option<Hold>),
    sealer: &Sealer,
) -> Result<Entry> {
    let tls = tls(row.id, row.tls, sealer);
    let headers = row.headers.open(sealer, row.id);
    let opens = tls.is_ok() && headers.is_ok();
    let patterns = row.event_types.iter().map(|p| Pattern::parse(p)).collect::<Result<_, _>>().ok();
    let seconds = |what, seconds: i32| readable(what, u64::try_from(seconds).ok()).map(Duration::from_secs);
    let subscription = Subscription {
        id: row.id,
        tenant_id: row.tenant_id,
        // Whether its address may be reached is asked at each attempt: the deployment may have changed its mind.
        endpoint: readable("subscriptions.url", EndpointUrl::known(&row.url).ok())?,
        event_types: readable("subscriptions.event_types", patterns)?,
        sources: row.sources,
        state: row.state,
        retry_policy: row.retry_policy,
        timeout: seconds("subscriptions.timeout_seconds", row.timeout_seconds)?,
        max_in_flight: readable("subscriptions.max_in_flight", u32::try_from(row.max_in_flight).ok())?,
        ordered: row.ordered,
        ordered_max_block: seconds("subscriptions.ordered_max_block_seconds", row.ordered_max_block_seconds)?,
        rate_limit: row.rate_limit,
        headers: headers.unwrap_or_default().into_iter().collect(),
        tls: tls.unwrap_or_default(),
        payload_format: row.payload_format,
        signatures: row.signatures,
    };
    Ok(Entry { subscription, secrets, flows, hold, opens })
}

/// What matches the events that the row matches, as far as its patterns can be read, and sends none of them.
fn unreadable(known: subscriptions::Known) -> Option<Entry> {
    let subscription = Subscription {
        id: known.id,
        tenant_id: known.tenant_id,
        endpoint: EndpointUrl::known("https://unreadable.invalid/").ok()?,
        event_types: known.event_types.iter().filter_map(|pattern| Pattern::parse(pattern).ok()).collect(),
        sources: known.sources,
        state: if known.is_disabled { subscription::State::Disabled } else { subscription::State::Paused },
        retry_policy: RetryPolicy::default(),
        timeout: Duration::from_secs(1),
        max_in_flight: 1,
        ordered: false,
        ordered_max_block: Duration::from_secs(1),
        rate_limit: None,
        headers: Vec::new(),
        tls: None,
        payload_format: subscription::PayloadFormat::Standard,
        signatures: Vec::new(),
    };
    Some(Entry { subscription, secrets: Vec::new(), flows: true, hold: None, opens: false })
}

/// `Err`: the key of its client certificate does not open.
fn tls(id: SubscriptionId, kept: subscriptions::Tls, sealer: &Sealer) -> Result<Option<Arc<EndpointTls>>, Unopened> {
    if kept.ca_bundle.is_none() && kept.client_identity.is_none() {
        return Ok(None);
    }
    let open = |sealed: subscriptions::SealedIdentity| {
        let key = sealer.open_logged(id.as_uuid(), &sealed.key).ok_or(Unopened)?;
        Ok(Identity { certificate: sealed.certificate, key })
    };
    let identity = kept.client_identity.map(open).transpose()?;
    Ok(Some(Arc::new(EndpointTls::new(kept.ca_bundle, identity))))
}

/// Something sealed that none of our keys opens.
struct Unopened;
