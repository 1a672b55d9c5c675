//! Lists narrowed in every way show what is asked for, all of it and once, newest first.

use jiff::Timestamp;
use posthorn_core::delivery::{HeldReason, State};
use posthorn_core::event_type::{EventType, Pattern};
use posthorn_core::id::{DeliveryId, EventId, SourceId, TenantId};
use posthorn_core::routing::Route;
use posthorn_core::time::later;
use posthorn_store::deliveries::{self, Delivery};
use posthorn_store::events::{self, Event, NewEvent, SourceName};
use posthorn_store::page::Page;
use posthorn_store::{Client, Error};
use posthorn_testkit::Database;
use uuid::Uuid;

use crate::samples::{delivery, event, now, secs, subscribed};

const PATTERNS: [&[&str]; 10] = [
    &[],
    &["*"],
    &["a.x"],
    &["a.*"],
    &["a.b.*"],
    &["a.x", "a.*", "b_1"],
    &["none"],
    &["none.*"],
    &["b.*", "b_.*"],
    &["many.*"],
];

/// More types below `many.` than are looked up one by one.
fn types() -> Vec<String> {
    let few = ["a", "a.x", "a.b.c", "a.b.d", "ab.x", "a-b", "b_1", "b1.x", "posthorn.x"].map(str::to_owned);
    few.into_iter().chain((0..250).map(|number| format!("many.{number}"))).collect()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

/// `*` of a list is really all.
fn matches(patterns: &[Pattern], event_type: &str) -> bool {
    let event_type = EventType::parse(event_type).unwrap();
    patterns.is_empty() || patterns.iter().any(|pattern| *pattern == Pattern::All || pattern.matches(&event_type))
}

/// Every page of a list, by small pages.
async fn pages<T>(id: impl Fn(&T) -> Uuid, mut list: impl AsyncFnMut(Page) -> Result<Vec<T>, Error>) -> Vec<T> {
    const LIMIT: i64 = 100;
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let mut rows = list(Page { before, limit: LIMIT }).await.unwrap();
        let is_last = rows.len() <= LIMIT as usize;
        rows.truncate(LIMIT as usize);
        before = rows.last().map(&id);
        all.extend(rows);
        if is_last {
            return all;
        }
    }
}

#[tokio::test]
async fn deliveries_of_some_types_and_states_are_all_listed_newest_first() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let mut made = Vec::new();
    for tenant in 0..2 {
        let (tenant_id, subscription_id) = subscribed(&client).await;
        for (number, event_type) in types().into_iter().enumerate() {
            let held = (number % 3 == tenant).then_some(HeldReason::Retry);
            let mut new = delivery(tenant_id, subscription_id, held, later(now(), secs(3600)));
            new.event_id = EventId::new(now(), Uuid::new_v4().as_bytes()[..10].try_into().unwrap());
            new.id = DeliveryId::derive(new.event_id, subscription_id);
            new.event_type = event_type;
            made.push(new);
        }
    }
    deliveries::insert(&client, &made, &[], now()).await.unwrap();

    let tenant = made[0].tenant_id;
    for texts in PATTERNS {
        for state in [None, Some(State::Held), Some(State::Queued), Some(State::Delivered), Some(State::Dead)] {
            for tenant_id in [None, Some(tenant)] {
                let event_types = patterns(texts);
                let mut expected: Vec<Uuid> = made
                    .iter()
                    .filter(|new| tenant_id.is_none_or(|tenant| new.tenant_id == tenant))
                    .filter(|new| matches(&event_types, &new.event_type))
                    .filter(|new| match state {
                        None => true,
                        Some(State::Held) => new.held.is_some(),
                        Some(State::Queued) => new.held.is_none(),
                        Some(_) => false,
                    })
                    .map(|new| *new.id.as_uuid())
                    .collect();
                expected.sort_by(|a, b| b.cmp(a));
                let filter = deliveries::Filter { tenant_id, state, event_types, ..deliveries::Filter::default() };
                let id = |delivery: &Delivery| *delivery.id.as_uuid();
                let listed = pages(id, async |page| deliveries::list(&client, &filter, page).await).await;
                let listed: Vec<Uuid> = listed.iter().map(id).collect();
                assert_eq!(listed, expected, "{texts:?}, {state:?}, {tenant_id:?}");
            }
        }
    }
}

async fn accepted(client: &Client, tenant: TenantId, number: u128, slug: &str) -> Vec<NewEvent> {
    let source_id = SourceId::from_uuid(Uuid::from_u128(number));
    let new: Vec<NewEvent> = types()
        .into_iter()
        .map(|event_type| NewEvent {
            source_id,
            source_slug: slug.to_owned(),
            route: Route::Tenant(tenant),
            event_type: EventType::parse(&event_type).unwrap(),
            ..event(&format!("{slug} {event_type}"), Timestamp::now())
        })
        .collect();
    events::accept(client, &new, now()).await.unwrap();
    new
}

#[tokio::test]
async fn events_of_some_types_and_sources_are_all_listed_newest_first() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (one, _) = subscribed(&client).await;
    let (other, _) = subscribed(&client).await;
    let mut all: Vec<(TenantId, NewEvent)> = Vec::new();
    for (tenant, number, slug) in [(one, 1, "stripe"), (other, 2, "other"), (one, 3, "")] {
        all.extend(accepted(&client, tenant, number, slug).await.into_iter().map(|event| (tenant, event)));
    }

    for texts in PATTERNS {
        for source in [None, Some(SourceName::Slug("stripe".into())), Some(SourceName::Id(all[600].1.source_id))] {
            for tenant_id in [None, Some(one)] {
                let event_types = patterns(texts);
                let mut expected: Vec<Uuid> = all
                    .iter()
                    .filter(|(tenant, _)| tenant_id.is_none_or(|wanted| *tenant == wanted))
                    .filter(|(_, event)| matches(&event_types, event.event_type.as_str()))
                    .filter(|(_, event)| match &source {
                        None => true,
                        Some(SourceName::Slug(slug)) => event.source_slug == *slug,
                        Some(SourceName::Id(id)) => event.source_id == *id,
                    })
                    .map(|(_, event)| *event.id.as_uuid())
                    .collect();
                expected.sort_by(|a, b| b.cmp(a));
                let filter =
                    events::Filter { tenant_id, event_types, source: source.clone(), ..events::Filter::default() };
                let id = |event: &Event| *event.id.as_uuid();
                let listed = pages(id, async |page| events::list(&client, &filter, page).await).await;
                let listed: Vec<Uuid> = listed.iter().map(id).collect();
                assert_eq!(listed, expected, "{texts:?}, {source:?}, {tenant_id:?}");
            }
        }
    }
}
