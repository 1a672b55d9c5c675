//! The record under what gateways ask of it: each event once, and kept until the broker has it.

use jiff::Timestamp;
use posthorn_core::subscription::Audience;
use posthorn_store::deliveries::{self, FannedOut};
use posthorn_store::events::{self, Accepted, NewEvent, Part};
use posthorn_testkit::Database;

use crate::samples::{event, now};

fn is_new(accepted: &Accepted) -> bool {
    matches!(accepted, Accepted::New { .. })
}

#[tokio::test]
async fn of_equal_events_in_one_batch_the_first_is_new() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let batch = [event("a", now()), event("b", now()), event("a", now())];

    let accepted = events::accept(&client, &batch, now()).await.unwrap();

    assert_eq!(accepted.iter().map(is_new).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(accepted[2], Accepted::Duplicate { first: batch[0].id });
}

#[tokio::test]
async fn an_event_that_straddles_midnight_is_new_once_whichever_side_it_lands_on() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    // Today's midnight: partitions from yesterday on are there.
    let midnight = (now().as_second() / 86_400) * 86_400;
    let at = |offset: i64| Timestamp::from_second(midnight + offset).unwrap();
    for (case, (first, second)) in
        [(-400, -10), (-10, 10), (-10, 400), (10, 400), (-200, 250), (290, 310)].iter().enumerate()
    {
        let key = format!("case {case}");
        let (one, two, three) = (event(&key, now()), event(&key, now()), event(&key, now()));
        let first_seen = events::accept(&client, std::slice::from_ref(&one), at(*first)).await.unwrap();
        let second_seen = events::accept(&client, &[two], at(*second)).await.unwrap();
        let much_later = events::accept(&client, &[three], at(3 * 86_400)).await.unwrap();
        assert!(is_new(&first_seen[0]), "{first} then {second}");
        assert_eq!(second_seen[0], Accepted::Duplicate { first: one.id }, "{first} then {second}");
        assert_eq!(much_later[0], Accepted::Duplicate { first: one.id }, "three days after {first}");
    }
}

#[tokio::test]
async fn batches_with_the_same_keys_in_opposite_order_do_not_deadlock_and_each_key_is_new_once() {
    let database = Database::create().await;
    let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let run = |reverse: bool| {
        let (store, keys) = (database.store.clone(), keys.clone());
        async move {
            let client = store.client().await.unwrap();
            let mut batch: Vec<NewEvent> = keys.iter().map(|key| event(key, now())).collect();
            if reverse {
                batch.reverse();
            }
            let accepted = events::accept(&client, &batch, now()).await.unwrap();
            accepted.iter().filter(|accepted| is_new(accepted)).count()
        }
    };

    let new = futures_util::future::join_all((0..6).map(|number| run(number % 2 == 0))).await;

    assert_eq!(new.iter().sum::<usize>(), 100);
}

#[tokio::test]
async fn the_relay_gets_what_was_accepted_until_it_is_fanned_out() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let new = event("a", now());
    events::accept(&client, std::slice::from_ref(&new), now()).await.unwrap();

    assert!(events::take_due(&client, 10, 30.0, 8192).await.unwrap().is_empty(), "the gateway comes first");
    client.execute("UPDATE outbox SET due_at = now()", &[]).await.unwrap();
    let due = events::take_due(&client, 10, 30.0, 1).await.unwrap();
    assert_eq!((due[0].id, due[0].body.is_none()), (new.id, true), "larger than asked for");
    assert!(events::take_due(&client, 10, 30.0, 8192).await.unwrap().is_empty(), "taken for a while");
    let fanned_out = FannedOut { event_id: new.id, part: Part::whole(), audience: Audience::Nobody };
    deliveries::insert(&client, &[], &[fanned_out], now()).await.unwrap();
    assert_eq!(events::outbox_backlog(&client).await.unwrap().0, 0);
}
