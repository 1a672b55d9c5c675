//! A deleted tenant leaves nothing behind, whoever erases it and whatever was under way.

use posthorn_core::delivery::Next;
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::routing::Route;
use posthorn_core::time::later;
use posthorn_store::events::{self, NewEvent};
use posthorn_store::page::Page;
use posthorn_store::{Client, Store, audit_log, chores, deliveries, health, idempotency, tenants};
use posthorn_testkit::{Database, World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

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
    loop {
        let deleted = tenants::deleted(&client, later(now(), secs(1))).await.unwrap();
        if deleted.is_empty() {
            return;
        }
        for tenant in deleted {
            while tenants::erase_some(&client, tenant, 3, now()).await.unwrap() > 0 {}
        }
    }
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

    let first = client.transaction().await.unwrap();
    tenants::erase_some(&first, tenant, 3, now()).await.unwrap();
    let process: i32 = first.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let store = database.store.clone();
    let second = tokio::spawn(async move {
        let client = store.client().await.unwrap();
        tenants::erase_some(&client, tenant, 3, now()).await.unwrap()
    });
    let watcher = database.store.client().await.unwrap();
    eventually("the second waits for the rows of the first", || async {
        let waiting = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
        (!watcher.query(waiting, &[&process]).await.unwrap().is_empty()).then_some(())
    })
    .await;
    first.commit().await.unwrap();

    assert_eq!(second.await.unwrap(), 0);
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

    assert!(tenants::deleted(&client, before_it_was_deleted).await.unwrap().is_empty());
    assert_eq!(rows(&client, "deliveries").await, 1);
}

#[tokio::test]
async fn an_entry_that_the_platform_wrote_is_blanked_with_its_tenant() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let transaction = client.transaction().await.unwrap();
    assert!(health::disable(&transaction, subscription, "failing", None, now()).await.unwrap());
    transaction.commit().await.unwrap();
    delete(&mut client, tenant).await;

    erase(database.store.clone()).await;

    let sql = "SELECT count(*) FROM audit_log WHERE action = 'disable' AND before IS NULL AND after IS NULL";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1, "that it was disabled stays");
    assert_eq!(rows(&client, "tenants").await, 0);
    let forged = client.execute("UPDATE audit_log SET request_id = 'req_1', before = NULL, after = NULL", &[]).await;
    assert!(forged.is_err(), "all else of an entry stays as it was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenants_history_is_gone_from_every_answer_at_once() {
    let world = World::start().await;
    let api = world.api();
    let (tenant, other) = (api.tenant("acme").await, api.tenant("globex").await);
    let receiver = world.receiver().await.responding([500, 200]);
    let once = json!({ "retry_policy": { "kind": "schedule", "delays_seconds": [] } });
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], once).await;
    let stripe = world.stripe_for(&tenant).await;
    let event = stripe.send("invoice.paid", json!({})).await;
    let dead = api.delivery_in(&event, "dead").await;
    let letters = format!("/v1/dead-letters?subscription_id={}", subscription["id"].as_str().unwrap());
    let letter = eventually("there is a dead letter", || async {
        api.get(&letters).await["data"].as_array().and_then(|data| data.first().cloned())
    })
    .await;
    let kept = world.stripe_for(&other).await.send("invoice.paid", json!({})).await;

    let (status, _) = api.call(Method::DELETE, &format!("/v1/tenants/{tenant}"), None).await;
    assert_eq!(status, 204);

    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (delivery, letter) = (text(&dead["id"]), text(&letter["id"]));
    for path in [
        format!("/v1/events/{event}"),
        format!("/v1/events/{event}/explain"),
        format!("/v1/deliveries/{delivery}"),
        format!("/v1/dead-letters/{letter}"),
        format!("/v1/events?tenant_id={tenant}"),
    ] {
        assert_eq!(api.call(Method::GET, &path, None).await.0, 404, "{path}");
    }
    for path in [
        format!("/v1/events/{event}/replay"),
        format!("/v1/deliveries/{delivery}/retry"),
        format!("/v1/deliveries/{delivery}/cancel"),
        format!("/v1/dead-letters/{letter}/replay"),
    ] {
        assert_eq!(api.call(Method::POST, &path, Some(&json!({}))).await.0, 404, "{path}");
    }
    for list in ["events", "deliveries", "dead-letters", "rejected-requests", "replays"] {
        let shown = api.get(&format!("/v1/{list}")).await["data"].clone();
        let of_deleted = shown.as_array().unwrap().iter().filter(|row| row["tenant_id"] == tenant.as_str()).count();
        assert_eq!(of_deleted, 0, "{list}: {shown}");
    }
    assert_eq!(api.get(&format!("/v1/events/{kept}")).await["tenant_id"], other.as_str());
    assert_eq!(api.get("/v1/stats").await["last_failures"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chore_that_fails_keeps_no_other_from_being_done() {
    let settings = [("DISPATCHER_JANITOR__EVERY_SECONDS", "1"), ("DISPATCHER_JANITOR__ERASE_AFTER_SECONDS", "0")];
    let world = World::start_with(&settings).await;
    let api = world.api();
    let client = world.database.store.client().await.unwrap();
    client.batch_execute("ALTER TABLE idempotency_keys RENAME COLUMN created_at TO made_at").await.unwrap();
    let (tenant, next) = (api.tenant("acme").await, api.tenant("globex").await);
    // The first tenant cannot be erased, the second can.
    let id = tenant.trim_start_matches("ten_");
    let hinder = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON tenants FOR EACH ROW WHEN (OLD.id = '{id}') EXECUTE FUNCTION refuse()"
    );
    client.batch_execute(&hinder).await.unwrap();
    for tenant in [&tenant, &next] {
        assert_eq!(api.call(Method::DELETE, &format!("/v1/tenants/{tenant}"), None).await.0, 204);
    }

    eventually("the second tenant is erased", || async { (rows(&client, "tenants").await == 1).then_some(()) }).await;
    let failed = eventually("each chore has run", || async {
        let runs = chores::runs(&client).await.unwrap();
        let (failed, well): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.last_error.is_some());
        let all_well = well.len() == 9 && well.iter().all(|run| run.last_success_at.is_some());
        all_well.then_some(failed)
    })
    .await;
    let names: Vec<&str> = failed.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["erase_tenants", "forget_idempotency_keys"]);
    let error = failed[1].last_error.as_deref().unwrap();
    assert!(error.contains("created_at"), "the cause is on record: {error}");
}
