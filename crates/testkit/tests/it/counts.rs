//! Counts by the hour: of each subscription, each tenant and all, and merged when the hour is over.

use jiff::Timestamp;
use posthorn_core::delivery::Next;
use posthorn_core::id::{DeliveryId, EventId, SourceId};
use posthorn_core::routing::Route;
use posthorn_core::time::{earlier, later, whole_micros};
use posthorn_store::delivery_stats::{self, Ends, Scope};
use posthorn_store::events::{self, NewEvent};
use posthorn_store::{Client, deliveries, rollup, source_stats};
use posthorn_testkit::Database;
use uuid::Uuid;

use crate::samples::{delivery, event, now, report, secs, subscribed};

/// A time in an hour that is over.
fn hours_ago(hours: u64) -> Timestamp {
    whole_micros(earlier(now(), secs(hours * 3600)))
}

async fn shards(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table} WHERE shard > 0"), &[]).await.unwrap().get(0)
}

async fn merge(client: &Client) {
    let over = hours_ago(2);
    while rollup::merge(client, over, 3).await.unwrap() {}
}

#[tokio::test]
async fn deliveries_are_counted_for_their_subscription_their_tenant_and_all_before_and_after_hours_are_merged() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (one, one_subscription) = subscribed(&client).await;
    let (other, other_subscription) = subscribed(&client).await;
    let mut number = 0;
    // Recorded one by one, so that they land in several shards.
    for (tenant, subscription, count) in [(one, one_subscription, 40), (other, other_subscription, 20)] {
        for _ in 0..count {
            number += 1;
            let mut new = delivery(tenant, subscription, None, later(now(), secs(60)));
            new.event_id = EventId::new(now(), [number; 10]);
            new.id = DeliveryId::derive(new.event_id, subscription);
            deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
            let hour = hours_ago(3 + u64::from(number % 2));
            let recorded = deliveries::record(&client, &[report(&new, 1, Next::Delivered)], hour).await.unwrap();
            assert_eq!(recorded.moved.len(), 1);
        }
    }
    assert!(shards(&client, "delivery_stats").await > 0 && shards(&client, "attempt_stats").await > 0);

    for merged in [false, true] {
        if merged {
            merge(&client).await;
            assert_eq!((shards(&client, "delivery_stats").await, shards(&client, "attempt_stats").await), (0, 0));
        }
        let cases = [
            (Scope::Subscription(one, one_subscription), 40),
            (Scope::Tenant(one), 40),
            (Scope::Subscription(other, other_subscription), 20),
            (Scope::Tenant(other), 20),
            (Scope::Subscription(other, one_subscription), 0),
            (Scope::All, 60),
        ];
        for (scope, count) in cases {
            let stats = delivery_stats::of(&client, scope, hours_ago(5)).await.unwrap();
            assert_eq!((stats.delivered, stats.failed, stats.attempts), (count, 0, count), "{scope:?}, {merged}");
            if count > 0 {
                assert_eq!(stats.by_event_type["invoice.paid"], Ends { delivered: count, failed: 0 });
                assert_eq!(stats.average_ms, Some(5.0), "{scope:?}, {merged}");
            }
            let half = delivery_stats::of(&client, scope, hours_ago(3)).await.unwrap();
            assert_eq!(half.delivered, count / 2, "{scope:?}, {merged}: only from that hour on");
        }
    }
}

/// Midnight, `days` before today.
fn days_ago(days: i64) -> Timestamp {
    Timestamp::from_second((now().as_second() / 86_400 - days) * 86_400).unwrap()
}

#[tokio::test]
async fn a_window_is_exact_whatever_hour_it_begins_with_before_and_after_days_have_rows_of_their_own() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    client.execute("UPDATE stats_days SET through = $1", &[&days_ago(5)]).await.unwrap();
    // One in every second hour of the five days before today, and one today.
    let mut hours: Vec<Timestamp> = (0..60).map(|number| later(days_ago(5), secs(number * 7200))).collect();
    hours.push(now());
    for (number, hour) in hours.iter().enumerate() {
        let mut new = delivery(tenant, subscription, None, later(now(), secs(60)));
        new.event_id = EventId::new(now(), [u8::try_from(number).unwrap(); 10]);
        new.id = DeliveryId::derive(new.event_id, subscription);
        deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
        deliveries::record(&client, &[report(&new, 1, Next::Delivered)], *hour).await.unwrap();
        let of_hour = NewEvent { received_at: *hour, ..event(&format!("key {number}"), now()) };
        events::accept(&client, &[of_hour], now()).await.unwrap();
    }

    // Each further pass has one more day with rows of its own, until the one that ended too lately is reached.
    for pass in 0..7 {
        for since in (0..=120).map(|hour| later(days_ago(5), secs(hour * 3600 + 1800))) {
            let first = Timestamp::from_second(since.as_second() / 3600 * 3600).unwrap();
            let count = i64::try_from(hours.iter().filter(|hour| **hour >= first).count()).unwrap();
            for scope in [Scope::Subscription(tenant, subscription), Scope::Tenant(tenant), Scope::All] {
                let stats = delivery_stats::of(&client, scope, since).await.unwrap();
                assert_eq!((stats.delivered, stats.attempts), (count, count), "{pass}, {since}, {scope:?}");
            }
            let received = source_stats::received(&client, None, since).await.unwrap();
            assert_eq!(received.total, count, "{pass}, {since}");
            let source =
                source_stats::of_source(&client, SourceId::from_uuid(Uuid::from_u128(9)), since).await.unwrap();
            assert_eq!(source.received, count, "{pass}, {since}");
        }
        let added = rollup::add_a_day(&client, days_ago(0)).await.unwrap();
        assert_eq!(added, pass < 4, "{pass}");
        merge(&client).await;
    }
}

#[tokio::test]
async fn events_are_counted_for_their_tenant_for_none_and_for_all_before_and_after_hours_are_merged() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, _) = subscribed(&client).await;
    let accept = async |key: &str, route: Route| {
        let at = hours_ago(3);
        // Twice: the second is a duplicate, which counts in the hour in which it came.
        for _ in 0..2 {
            let new = NewEvent { route: route.clone(), received_at: at, ..event(key, now()) };
            events::accept(&client, &[new], now()).await.unwrap();
        }
    };
    for number in 0..30 {
        accept(&format!("routed {number}"), Route::Tenant(tenant)).await;
        accept(&format!("unrouted {number}"), Route::Unrouted).await;
    }
    assert!(shards(&client, "event_stats").await > 0);

    for merged in [false, true] {
        if merged {
            merge(&client).await;
        }
        let all = source_stats::received(&client, None, hours_ago(4)).await.unwrap();
        assert_eq!((all.total, all.duplicates), (60, 60), "{merged}");
        let routed = source_stats::received(&client, Some(tenant), hours_ago(4)).await.unwrap();
        assert_eq!((routed.total, routed.duplicates), (30, 30), "{merged}");
        let source = SourceId::from_uuid(Uuid::from_u128(9));
        let stats = source_stats::of_source(&client, source, hours_ago(4)).await.unwrap();
        assert_eq!((stats.received, stats.duplicates), (60, 60), "{merged}");
        assert_eq!(stats.received_by_event_type["invoice.paid"], 60);
    }
}
