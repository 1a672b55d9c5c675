//! A deleted tenant leaves nothing behind, whoever erases it and whatever was under way.

use posthorn_core::delivery::Next;
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::routing::Route;
use posthorn_core::time::later;
use posthorn_store::events::{self, NewEvent};
use posthorn_store::page::Page;
use posthorn_store::{Client, Store, audit_log, deliveries, idempotency, tenants};
use posthorn_testkit::{Database, eventually};

use crate::samples::{delivery, event, now, report, secs, subscribed};

/// Events, and deliveries each with one attempt.
async fn furnish(client: &Client, tenant: TenantId, subscription: SubscriptionId, count: u8) {
    let accepted: Vec<NewEvent> = (0..count)
        .map(|number| NewEvent { route: Route::Tenant(tenant), ..event(&format!("event {number}"), now()) })
        .collect();
    events::accept(client, &accepted, now()).await.unwrap();
    let mut made = Vec::new();
    for number in 0..count {
        let mut new = delivery(tenant, subscription, None, later(now(), secs(60)));
        new.event_id = EventId::new(now(), [number; 10]);
        new.id = DeliveryId::derive(new.event_id, subscription);
        made.push(new);
    }
    deliveries::insert(client, &made, &[], now()).await.unwrap();
    let reports: Vec<_> = made.iter().map(|new| report(new, 1, Next::Delivered)).collect();
    deliveries::record(client, &reports, now()).await.unwrap();
}

async fn delete(client: &mut Client, tenant: TenantId) {
    let transaction = client.transaction().await.unwrap();
    assert!(tenants::delete(&transaction, tenant, now()).await.unwrap());
    transaction.commit().await.unwrap();
}

/// As a janitor does it, a few rows at once.
async fn erase(store: Store) {
    let client = store.client().await.unwrap();
    while tenants::erase_some(&client, later(now(), secs(1)), 3, now()).await.unwrap().is_some() {}
}

async fn rows(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn several_janitors_erase_a_tenant_to_the_last_row_and_tell_it_once() {
    const COUNT: u8 = 60;
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    furnish(&client, tenant, subscription, COUNT).await;
    let transaction = client.transaction().await.unwrap();
    idempotency::begin(&transaction, *tenant.as_uuid(), "key", b"hash", now()).await.unwrap();
    idempotency::finish(&transaction, *tenant.as_uuid(), "key", 201, b"sealed").await.unwrap();
    transaction.commit().await.unwrap();
    delete(&mut client, tenant).await;

    futures_util::future::join_all((0..4).map(|_| erase(database.store.clone()))).await;

    let history = ["events", "event_dedup", "outbox", "deliveries", "attempts", "idempotency_keys"];
    for table in ["tenants", "subscriptions"].into_iter().chain(history) {
        assert_eq!(rows(&client, table).await, 0, "{table}");
    }
    let filter = audit_log::Filter { tenant_id: Some(tenant), ..audit_log::Filter::default() };
    let told = audit_log::list(&client, &filter, Page { before: None, limit: 10 }).await.unwrap();
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.actor.as_str(), told.action.as_str()), ("posthorn", "erase"));
    let all = serde_json::json!({ "rows": 3 * i64::from(COUNT) });
    assert_eq!(told.after, Some(all), "events, deliveries, attempts");
}

#[tokio::test]
async fn a_janitor_that_finds_all_its_rows_taken_does_not_call_a_tenant_erased() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    // Deliveries alone, so that the second janitor finds nothing else to do.
    let events: Vec<EventId> = (0..6).map(|number| EventId::new(now(), [number; 10])).collect();
    let made: Vec<_> = events
        .iter()
        .map(|event_id| {
            let mut new = delivery(tenant, subscription, None, later(now(), secs(60)));
            (new.event_id, new.id) = (*event_id, DeliveryId::derive(*event_id, subscription));
            new
        })
        .collect();
    deliveries::insert(&client, &made, &[], now()).await.unwrap();
    delete(&mut client, tenant).await;

    let before = later(now(), secs(1));
    let first = client.transaction().await.unwrap();
    tenants::erase_some(&first, before, 3, now()).await.unwrap();
    let process: i32 = first.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let store = database.store.clone();
    let second = tokio::spawn(async move {
        let client = store.client().await.unwrap();
        tenants::erase_some(&client, before, 3, now()).await.unwrap()
    });
    let watcher = database.store.client().await.unwrap();
    eventually("the second waits for the rows of the first", || async {
        let waiting = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
        (!watcher.query(waiting, &[&process]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    first.commit().await.unwrap();

    assert_eq!(second.await.unwrap(), Some((tenant, 0)));
    assert_eq!((rows(&watcher, "deliveries").await, rows(&watcher, "tenants").await), (3, 1));
    erase(database.store.clone()).await;
    assert_eq!((rows(&watcher, "deliveries").await, rows(&watcher, "tenants").await), (0, 0));
}

#[tokio::test]
async fn a_tenant_is_left_alone_until_no_attempt_of_its_can_be_under_way() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    furnish(&client, tenant, subscription, 1).await;
    let before_it_was_deleted = now();
    delete(&mut client, tenant).await;

    assert_eq!(tenants::erase_some(&client, before_it_was_deleted, 100, now()).await.unwrap(), None);
    assert_eq!(rows(&client, "deliveries").await, 1);
}
