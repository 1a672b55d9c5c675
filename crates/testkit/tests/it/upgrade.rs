//! What an older version wrote, before this one's migrations and beside them.

use jiff::Timestamp;
use posthorn_core::id::EventId;
use posthorn_core::subscription::Audience;
use posthorn_store::deliveries::{self, FannedOut};
use posthorn_store::events::{self, Part};
use posthorn_store::{Client, migrate};
use posthorn_testkit::Database;

use crate::samples::{event, now};

/// Accepts an event as gateways before version 12 did.
async fn accept_as_before_12(client: &Client, key: &str) -> EventId {
    let new = event(key, now());
    client
        .execute(
            "WITH e AS (INSERT INTO events (id, audience, source_id, source_slug, event_type, dedup_key, received_at, headers,
                                            content_type, traceparent, body)
                        VALUES ($1, 'broadcast', $2, '', 'invoice.paid', $3, now(), '{}', '', '', '{}'))
             INSERT INTO outbox (event_id, due_at) VALUES ($1, now() - interval '1 second')",
            &[new.id.as_uuid(), new.source_id.as_uuid(), &new.dedup_key],
        )
        .await
        .unwrap();
    new.id
}

#[tokio::test]
async fn what_stood_in_the_outbox_of_version_11_is_published_and_old_gateways_go_on() {
    let database = Database::create_at(11).await;
    let client = database.store.client().await.unwrap();
    let before = accept_as_before_12(&client, "before").await;

    migrate::run(&database.store, Timestamp::now()).await.unwrap();

    let beside = accept_as_before_12(&client, "beside").await;
    let confirmed = accept_as_before_12(&client, "confirmed").await;
    // As an old gateway settles what the broker has.
    client.execute("DELETE FROM outbox WHERE event_id = ANY($1)", &[&vec![*confirmed.as_uuid()]]).await.unwrap();
    let mut due = events::take_due(&client, 10, 30.0, 8192).await.unwrap();
    due.sort_by_key(|event| event.id);
    assert_eq!(
        due.iter().map(|event| (event.id, event.part)).collect::<Vec<_>>(),
        [(before, Part::whole()), (beside, Part::whole()),]
    );
    for event_id in [before, beside, confirmed] {
        let fanned_out = FannedOut { event_id, part: Part::whole(), audience: Audience::Everyone };
        deliveries::insert(&client, &[], &[fanned_out], now()).await.unwrap();
    }
    assert_eq!(events::outbox_backlog(&client).await.unwrap().0, 0);
}
