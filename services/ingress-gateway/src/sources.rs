//! The sources as the gateway knows them: a snapshot that follows the database.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use posthorn_core::pace::{self, Bucket};
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_core::signature::Verifier;
use posthorn_store::changes::{self, Change};
use posthorn_store::{Store, sources};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// A source, ready to judge requests.
#[derive(Debug)]
pub struct Door {
    pub id: SourceId,
    pub tenant_id: Option<TenantId>,
    /// Empty for a tenant's source.
    pub slug: String,
    pub provider: Provider,
    pub routing: Routing,
    /// `Err` tells why nothing can be verified: then everything is refused as our fault.
    pub verifier: Result<Verifier, String>,
    /// The secrets' ids, in the order of the verifier's.
    pub secrets: Vec<SecretId>,
    /// Empty allows every address.
    pub allowed: Vec<IpNet>,
    pub max_body_bytes: Option<usize>,
    pub response: Option<Response>,
    rate: Option<Arc<Rate>>,
}

/// A source's rate limit, which outlives the snapshot that it stands in.
#[derive(Debug)]
struct Rate {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

/// What a source answers instead of the usual.
#[derive(Clone, Debug, Deserialize)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Door {
    /// Whether a request from `address` may come in.
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        self.allowed.is_empty()
            || address.is_some_and(|address| {
                let address = address.to_canonical();
                self.allowed.iter().any(|net| net.contains(&address))
            })
    }

    /// Whether the source's rate leaves room for one more request now.
    pub fn admits(&self, now: Timestamp) -> bool {
        let Some(rate) = &self.rate else { return true };
        let mut bucket = rate.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, left) = pace::take(&bucket, rate.per_second, 1, now);
        *bucket = left;
        taken == 1
    }
}

/// All sources, by what stands in the URL; `None` until they are loaded. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sources(Arc<RwLock<Option<Doors>>>);

type Doors = HashMap<String, Arc<Door>>;
type Rates = HashMap<SourceId, Arc<Rate>>;

/// What is known of an address.
#[derive(Clone, Debug)]
pub enum Found {
    Door(Arc<Door>),
    Nothing,
    /// The sources are not loaded: whether there is one is not known.
    NotLoaded,
}

impl Sources {
    pub fn find(&self, address: &str) -> Found {
        match self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Found::NotLoaded,
            Some(doors) => doors.get(address).cloned().map_or(Found::Nothing, Found::Door),
        }
    }

    /// The rate limits of now, so that a new snapshot does not fill their buckets.
    fn rates(&self) -> Rates {
        let doors = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let doors = doors.iter().flat_map(HashMap::values);
        doors.filter_map(|door| Some((door.id, Arc::clone(door.rate.as_ref()?)))).collect()
    }

    fn replace(&self, doors: Doors) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(doors);
    }

    fn replace_one(&self, id: SourceId, door: Option<(String, Arc<Door>)>) {
        let mut doors = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Before the first complete load, that will bring it.
        let Some(doors) = doors.as_mut() else { return };
        doors.retain(|_, known| known.id != id);
        doors.extend(door);
    }
}

/// Follows the database until `stop`. Sends `true` on `loaded` after the first complete load.
pub async fn follow(store: Store, sources: Sources, loaded: tokio::sync::watch::Sender<bool>, stop: CancellationToken) {
    let (news, mut told) = mpsc::channel(1024);
    let watching = changes::watch(store.clone(), RELOAD, news, stop.clone());
    let applying = async {
        while let Some(change) = told.recv().await {
            let applied = match change {
                Change::Everything => load_all(&store, &sources).await.map(|()| {
                    loaded.send_replace(true);
                }),
                Change::Source(id) => load_one(&store, &sources, SourceId::from_uuid(id)).await,
                Change::Subscription(_) => Ok(()),
            };
            if let Err(error) = applied {
                // The next complete load mends it.
                warn!(error = &error as &dyn std::error::Error, "a change of sources could not be read");
            }
        }
    };
    tokio::join!(watching, stop.run_until_cancelled(applying));
}

/// How often everything is loaded again, in case a notification was missed.
const RELOAD: Duration = Duration::from_secs(20);

async fn load_all(store: &Store, known: &Sources) -> posthorn_store::Result<()> {
    let client = store.client().await?;
    let all = sources::all(&client).await?;
    let ids: Vec<SourceId> = all.iter().map(|source| source.id).collect();
    let mut secrets: HashMap<SourceId, Vec<sources::Secret>> = HashMap::new();
    for (id, secret) in sources::secrets(&client, store.sealer(), &ids).await? {
        secrets.entry(id).or_default().push(secret);
    }
    let rates = known.rates();
    let doors = all
        .into_iter()
        .map(|source| {
            let secrets = secrets.remove(&source.id).unwrap_or_default();
            (source.address().to_owned(), Arc::new(door(source, secrets, &rates)))
        })
        .collect::<Doors>();
    known.replace(doors);
    Ok(())
}

async fn load_one(store: &Store, known: &Sources, id: SourceId) -> posthorn_store::Result<()> {
    let client = store.client().await?;
    let found = sources::find(&client, None, id).await?;
    let secrets = sources::secrets(&client, store.sealer(), &[id]).await?;
    let rates = known.rates();
    let door = found.map(|source| {
        let secrets = secrets.into_iter().map(|(_, secret)| secret).collect();
        (source.address().to_owned(), Arc::new(door(source, secrets, &rates)))
    });
    info!(source.id = %id, gone = door.is_none(), "a source changed");
    known.replace_one(id, door);
    Ok(())
}

fn door(source: sources::Source, secrets: Vec<sources::Secret>, rates: &Rates) -> Door {
    let ids = secrets.iter().map(|secret| secret.id).collect();
    let texts = secrets.into_iter().map(|secret| secret.secret).collect();
    let verifier = Verifier::new(source.provider, &source.config, texts).map_err(|fault| {
        error!(source.id = %source.id, error = &fault as &dyn std::error::Error, "a source cannot verify anything");
        fault.to_string()
    });
    let per_second = source.rate_limit.as_ref().and_then(|limit| limit.get("per_second")?.as_f64());
    let known = rates.get(&source.id).cloned();
    let rate = per_second.map(|per_second| {
        let fresh = || Arc::new(Rate { per_second, bucket: Mutex::new(Bucket { tokens: 0.0, at: None }) });
        known.filter(|known| known.per_second == per_second).unwrap_or_else(fresh)
    });
    Door {
        id: source.id,
        tenant_id: source.tenant_id,
        slug: source.slug.unwrap_or_default(),
        provider: source.provider,
        routing: source.routing,
        verifier,
        secrets: ids,
        // Written by the API, which parses them first.
        allowed: source.allowed_ips.iter().filter_map(|net| parse_net(net)).collect(),
        max_body_bytes: source.max_body_bytes.and_then(|bytes| usize::try_from(bytes).ok()),
        response: source.response.and_then(|response| serde_json::from_value(response).ok()),
        rate,
    }
}

/// A network, or a single address.
fn parse_net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
