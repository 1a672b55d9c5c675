//! The sources as the gateway knows them: a snapshot that follows the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::address::AllowList;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_core::schema::{Schema, Validation};
use posthorn_core::signature::Verifier;
use posthorn_process::telemetry::chain;
use posthorn_store::changes::{self, Change};
use posthorn_store::{Store, event_types, sources};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::limits;

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
    /// The secrets' ids, in the order of the verifier's, and until when each is good.
    pub secrets: Vec<(SecretId, Option<Timestamp>)>,
    pub allowed: AllowList,
    pub max_body_bytes: Option<usize>,
    pub response: Option<Response>,
    pub validate: Validation,
    /// Requests a second from one address.
    pub address_rate: Option<f64>,
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
#[serde(deny_unknown_fields)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

impl Door {
    /// Whether anything is verified: only for the algorithm `none` it is not.
    pub fn verifies(&self) -> bool {
        self.verifier.as_ref().map_or(true, Verifier::is_verifying)
    }

    /// Takes one request of the source's rate; `Err` tells when there will be room again.
    pub fn admit(&self, now: Timestamp) -> Result<(), Timestamp> {
        self.rate.as_ref().map_or(Ok(()), |rate| limits::take(&rate.bucket, rate.per_second, now))
    }
}

/// All sources, by what stands in the URL, and the schemas of event types; `None` until they are
/// loaded. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    doors: Arc<RwLock<Option<Doors>>>,
    schemas: Arc<RwLock<Schemas>>,
}

type Doors = HashMap<String, Place>;
type Schemas = HashMap<String, KnownSchema>;
/// `Err` tells why a schema of the catalogue cannot be used.
type KnownSchema = Result<Arc<Schema>, String>;
type Rates = HashMap<SourceId, Arc<Rate>>;

/// What is at an address.
#[derive(Clone, Debug)]
enum Place {
    Door(Arc<Door>),
    /// A source whose row cannot be read, and why.
    Unreadable(SourceId, String),
}

impl Place {
    fn id(&self) -> SourceId {
        match self {
            Self::Door(door) => door.id,
            Self::Unreadable(id, _) => *id,
        }
    }
}

/// What is known of an address.
#[derive(Clone, Debug)]
pub enum Found {
    Door(Arc<Door>),
    /// There is a source which cannot be read: everything is refused as our fault, for this reason.
    Unreadable(String),
    Nothing,
    /// The sources are not loaded: whether there is one is not known.
    NotLoaded,
}

impl Sources {
    pub fn find(&self, address: &str) -> Found {
        match self.doors.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Found::NotLoaded,
            Some(doors) => match doors.get(address) {
                None => Found::Nothing,
                Some(Place::Door(door)) => Found::Door(Arc::clone(door)),
                Some(Place::Unreadable(_, fault)) => Found::Unreadable(fault.clone()),
            },
        }
    }

    /// The schema of an event type; `None`: the catalogue has none.
    pub fn schema(&self, event_type: &EventType) -> Option<KnownSchema> {
        self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(event_type.as_str()).cloned()
    }

    /// The rate limits of now, so that a new snapshot does not fill their buckets.
    fn rates(&self) -> Rates {
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        let rate = |place: &Place| match place {
            Place::Door(door) => Some((door.id, Arc::clone(door.rate.as_ref()?))),
            Place::Unreadable(..) => None,
        };
        doors.iter().flat_map(HashMap::values).filter_map(rate).collect()
    }

    fn replace(&self, doors: Doors) {
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Some(doors);
    }

    fn replace_schemas(&self, schemas: Schemas) {
        *self.schemas.write().unwrap_or_else(PoisonError::into_inner) = schemas;
    }

    fn replace_one(&self, id: SourceId, place: Option<(String, Place)>) {
        let mut doors = self.doors.write().unwrap_or_else(PoisonError::into_inner);
        // Before the first complete load, that will bring it.
        let Some(doors) = doors.as_mut() else { return };
        doors.retain(|_, known| known.id() != id);
        doors.extend(place);
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
                Change::EventType(_) => load_schemas(&store, &sources).await,
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
    load_schemas(store, known).await?;
    let client = store.client().await?;
    let all = sources::snapshot(&client, None).await?;
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
            place(source, secrets, &rates)
        })
        .collect::<Doors>();
    known.replace(doors);
    Ok(())
}

async fn load_schemas(store: &Store, known: &Sources) -> posthorn_store::Result<()> {
    let schemas = event_types::schemas(&store.client().await?).await?;
    let parsed = schemas.into_iter().map(|(name, schema)| {
        let schema = Schema::parse(&schema).map(Arc::new).map_err(|fault| {
            // Written by the API, which parses them first.
            error!(error = &fault as &dyn std::error::Error, "the schema of `{name}` cannot be used");
            format!("the schema of `{name}` cannot be used: {fault}")
        });
        (name, schema)
    });
    known.replace_schemas(parsed.collect());
    Ok(())
}

async fn load_one(store: &Store, known: &Sources, id: SourceId) -> posthorn_store::Result<()> {
    let client = store.client().await?;
    let found = sources::snapshot(&client, Some(id)).await?.pop();
    let secrets = sources::secrets(&client, store.sealer(), &[id]).await?;
    let rates = known.rates();
    let place = found.map(|source| {
        let secrets = secrets.into_iter().map(|(_, secret)| secret).collect();
        place(source, secrets, &rates)
    });
    info!(source.id = %id, gone = place.is_none(), "a source changed");
    known.replace_one(id, place);
    Ok(())
}

/// A source at its address. A part of it that cannot be read is never taken for one that is not there.
fn place(known: sources::Known, secrets: Vec<sources::Secret>, rates: &Rates) -> (String, Place) {
    let place = match known.source {
        Ok(source) => Place::Door(Arc::new(door(source, secrets, rates))),
        Err(fault) => {
            let fault = chain(&fault);
            error!(source.id = %known.id, "a source can take nothing in: {fault}");
            Place::Unreadable(known.id, fault)
        }
    };
    (known.address, place)
}

fn door(source: sources::Source, secrets: Vec<sources::Secret>, rates: &Rates) -> Door {
    let ids = secrets.iter().map(|secret| (secret.id, secret.expires_at)).collect();
    let texts = secrets.into_iter().map(|secret| secret.secret).collect();
    let verifier = Verifier::new(source.provider, &source.config, texts).map_err(|fault| fault.to_string());
    let (limits, verifier) = match Limits::of(&source) {
        Ok(limits) => (limits, verifier),
        Err(fault) => (Limits::default(), Err(fault)),
    };
    if let Err(fault) = &verifier {
        error!(source.id = %source.id, "a source can take nothing in: {fault}");
    }
    let Limits { allowed, rate, max_body_bytes, response } = limits;
    let known = rates.get(&source.id).cloned();
    let address_rate = rate.per_address_per_second;
    let rate = rate.per_second.map(|per_second| {
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
        allowed,
        max_body_bytes,
        response,
        validate: source.validate,
        address_rate,
        rate,
    }
}

/// What a source takes in, and what it answers.
#[derive(Default)]
struct Limits {
    allowed: AllowList,
    rate: RateLimit,
    max_body_bytes: Option<usize>,
    response: Option<Response>,
}

/// Requests a second, from all addresses and from one; `None`: no limit.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    per_second: Option<f64>,
    per_address_per_second: Option<f64>,
}

impl Limits {
    /// Reads what the API wrote. `Err` names the field that cannot be read.
    fn of(source: &sources::Source) -> Result<Self, String> {
        let rate = source.rate_limit.as_ref().map(RateLimit::deserialize).transpose();
        let rate = rate.map_err(|fault| format!("rate_limit: {fault}"))?.unwrap_or_default();
        let rates = [rate.per_second, rate.per_address_per_second];
        if rates.into_iter().flatten().any(|rate| rate <= 0.0) {
            return Err("rate_limit: a rate is above 0".to_owned());
        }
        let max_body_bytes = source.max_body_bytes.map(usize::try_from).transpose();
        let response = source.response.as_ref().map(Response::deserialize).transpose();
        Ok(Self {
            allowed: AllowList::parse(&source.allowed_ips)
                .map_err(|index| format!("allowed_ips/{index} is no network"))?,
            rate,
            max_body_bytes: max_body_bytes.map_err(|fault| format!("max_body_bytes: {fault}"))?,
            response: response.map_err(|fault| format!("response: {fault}"))?,
        })
    }
}
