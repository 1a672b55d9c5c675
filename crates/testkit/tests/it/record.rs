//! The record under what the services ask of it: uniqueness, fences, fairness.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, Next, State, Trigger};
use posthorn_core::id::{DeadLetterId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::time::{later, whole_micros};
use posthorn_store::deliveries::{self, Claim, Made, NewDelivery, Report, Word};
use posthorn_store::schedule::{self, Allowance};
use posthorn_store::{dead_letters, subscriptions};
use posthorn_testkit::Database;
use uuid::Uuid;

use crate::samples::{delivery, now, report, secs, subscribed};

fn claim(delivery: &NewDelivery, lease_until: Timestamp) -> Claim {
    Claim { id: delivery.id, generation: 1, attempt: 1, lease_until, new_lease: whole_micros(later(now(), secs(99))) }
}

#[tokio::test]
async fn of_two_messages_for_one_attempt_only_one_is_obeyed() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let lease = now();
    let new = delivery(tenant, subscription, None, lease);
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();

    // The lease ran out: the scheduler publishes a second message while the first is still somewhere.
    let renewed = schedule::renew_lost(&client, 10, whole_micros(later(now(), secs(60))), now()).await.unwrap();

    assert!(deliveries::claim(&client, &[claim(&new, lease)]).await.unwrap().is_empty(), "the old message");
    let second = claim(&new, renewed[0].lease_until);
    assert_eq!(deliveries::claim(&client, &[second]).await.unwrap().len(), 1, "the new message");
    assert!(deliveries::claim(&client, &[second]).await.unwrap().is_empty(), "the new message, doubled");
}

#[tokio::test]
async fn what_the_broker_never_got_is_published_again_before_its_lease_runs_out() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let lease = whole_micros(later(now(), secs(60)));
    let [refused, renewed] = [(); 2].map(|()| delivery(tenant, subscription, None, lease));
    deliveries::insert(&client, &[refused.clone(), renewed.clone()], &[], now()).await.unwrap();

    // Somebody renewed the lease of the other one meanwhile: there is a message for it.
    let old = whole_micros(later(now(), secs(30)));
    schedule::give_back(&client, &[(refused.id, lease), (renewed.id, old)], now()).await.unwrap();

    let again = schedule::renew_lost(&client, 10, lease, now()).await.unwrap();
    assert_eq!(again.iter().map(|release| release.id).collect::<Vec<_>>(), [refused.id]);
}

#[tokio::test]
async fn recording_twice_changes_nothing_the_second_time() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new = delivery(tenant, subscription, None, later(now(), secs(60)));
    assert_eq!(deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap().len(), 1);
    assert!(deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap().is_empty());

    let reports = [report(&new, 1, Next::Delivered)];
    assert_eq!(deliveries::record(&client, &reports, now()).await.unwrap().moved.len(), 1);
    assert!(deliveries::record(&client, &reports, now()).await.unwrap().moved.is_empty());
    assert!(deliveries::record(&client, &[report(&new, 2, Next::Delivered)], now()).await.unwrap().moved.is_empty());

    let found = deliveries::find(&client, Some(tenant), new.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.attempts_made), (State::Delivered, 1));
    assert_eq!(deliveries::attempts(&client, new.id).await.unwrap().len(), 2, "what was sent is told");
    let (_, counts) = subscriptions::find(&client, None, subscription).await.unwrap().unwrap();
    assert_eq!((counts.delivered, counts.failed), (1, 0));
}

#[tokio::test]
async fn a_terminal_delivery_moves_by_nothing_but_a_replay() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new = delivery(tenant, subscription, None, later(now(), secs(60)));
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
    deliveries::record(&client, &[report(&new, 1, Next::Dead(DeadReason::Exhausted))], now()).await.unwrap();

    deliveries::record(&client, &[report(&new, 2, Next::Delivered)], now()).await.unwrap();
    assert!(
        schedule::renew_lost(&client, 10, later(now(), secs(60)), later(now(), secs(999))).await.unwrap().is_empty()
    );
    let found = deliveries::find(&client, None, new.id).await.unwrap().unwrap();
    assert_eq!(found.state, State::Dead);

    let going = deliveries::set_going(&client, Some(tenant), &[new.id], &[State::Dead], Trigger::Replay, now()).await;
    assert_eq!(going.unwrap().len(), 1);
    let found = deliveries::find(&client, None, new.id).await.unwrap().unwrap();
    assert_eq!((found.state, found.generation), (State::Held, 2));
    let other = TenantId::from_uuid(Uuid::from_u128(1));
    let going = deliveries::set_going(&client, Some(other), &[new.id], &[State::Held], Trigger::Manual, now()).await;
    assert!(going.unwrap().is_empty(), "another tenant's");
}

#[tokio::test]
async fn a_thousand_rows_of_one_endpoint_do_not_hide_anothers() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, busy) = subscribed(&client).await;
    let (other_tenant, quiet) = subscribed(&client).await;
    let long_ago = whole_micros(Timestamp::from_second(now().as_second() - 3600).unwrap());
    let mut new: Vec<_> = (0..1000).map(|_| delivery(tenant, busy, Some(HeldReason::Retry), long_ago)).collect();
    new.push(delivery(other_tenant, quiet, Some(HeldReason::Retry), whole_micros(now())));
    deliveries::insert(&client, &new, &[], now()).await.unwrap();

    let transaction = client.transaction().await.unwrap();
    let due = schedule::due_subscriptions(&transaction, 10, now()).await.unwrap();
    let allowances: Vec<Allowance> = due
        .iter()
        .map(|due| Allowance {
            subscription_id: due.subscription_id,
            limit: 50,
            lease_until: whole_micros(later(now(), secs(60))),
            bucket: Bucket { tokens: 0.0, at: None },
            not_before: now(),
            sleep: false,
            probe: false,
        })
        .collect();
    let released = schedule::release(&transaction, &allowances, now()).await.unwrap();
    transaction.commit().await.unwrap();

    assert_eq!(released.iter().filter(|r| r.subscription_id == busy).count(), 50);
    assert_eq!(released.iter().filter(|r| r.subscription_id == quiet).count(), 1);
    let transaction = client.transaction().await.unwrap();
    let still_due = schedule::due_subscriptions(&transaction, 10, now()).await.unwrap();
    assert_eq!(still_due.iter().map(|due| due.subscription_id).collect::<Vec<_>>(), [busy]);
}

#[tokio::test]
async fn many_subscriptions_that_may_not_go_yet_do_not_keep_another_from_its_turn() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let long_ago = whole_micros(Timestamp::from_second(now().as_second() - 3600).unwrap());
    for _ in 0..10 {
        let (tenant, limited) = subscribed(&client).await;
        let backlog = delivery(tenant, limited, Some(HeldReason::Rate), long_ago);
        deliveries::insert(&client, &[backlog], &[], now()).await.unwrap();
    }
    let (tenant, other) = subscribed(&client).await;
    let retry = delivery(tenant, other, Some(HeldReason::Retry), now());
    deliveries::insert(&client, &[retry], &[], now()).await.unwrap();

    // A scheduler that looks at five at a time, and whose rate limits have nothing to hand out.
    let mut looked_at = Vec::new();
    for _ in 0..3 {
        let transaction = client.transaction().await.unwrap();
        let due = schedule::due_subscriptions(&transaction, 5, now()).await.unwrap();
        let allowances: Vec<Allowance> = due
            .iter()
            .map(|due| Allowance {
                subscription_id: due.subscription_id,
                limit: 0,
                lease_until: later(now(), secs(60)),
                bucket: Bucket { tokens: 0.0, at: Some(now()) },
                not_before: whole_micros(later(now(), secs(1))),
                sleep: false,
                probe: false,
            })
            .collect();
        schedule::release(&transaction, &allowances, now()).await.unwrap();
        transaction.commit().await.unwrap();
        looked_at.extend(due.iter().map(|due| due.subscription_id));
    }

    assert!(looked_at.contains(&other), "it had its turn");
}

/// A report of an attempt that came to `error` and is followed by `next`.
fn attempted(new: &NewDelivery, place: u64, error: Option<&'static str>, next: Next) -> Report {
    let report = report(new, 1, next);
    let Word::Attempted(made) = report.word.clone() else { unreachable!("a report of an attempt") };
    let error = error.map(|code| (code, "the endpoint answered".to_owned()));
    let started_at = later(made.started_at, Duration::from_millis(place));
    Report { word: Word::Attempted(Box::new(Made { error, started_at, ..*made })), ..report }
}

#[tokio::test]
async fn a_subscription_fails_since_the_first_failure_after_its_last_success() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let mut fails = false;
    // Batches of several lengths; a repeated report counts once.
    for (batch, failures) in [0b1u32, 0b0110, 0b1111_0000_1010, 0, 0b101, u32::MAX].into_iter().enumerate() {
        let length = [1, 4, 12, 3, 3, 25][batch];
        let new: Vec<_> = (0..length).map(|_| delivery(tenant, subscription, None, later(now(), secs(60)))).collect();
        deliveries::insert(&client, &new, &[], now()).await.unwrap();
        let reports: Vec<Report> = new
            .iter()
            .enumerate()
            .map(|(place, new)| {
                fails = failures >> place & 1 == 1;
                attempted(new, place as u64, fails.then_some("status"), Next::Delivered)
            })
            .collect();
        let recorded = deliveries::record(&client, &reports, now()).await.unwrap();
        assert_eq!(recorded.vitals.len(), usize::from(fails), "batch {batch}");
        deliveries::record(&client, &reports, now()).await.unwrap();
        let row = client.query_one("SELECT failing_since IS NOT NULL FROM subscription_runtime", &[]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), fails, "batch {batch}");
    }
}

#[tokio::test]
async fn an_endpoint_that_asks_for_time_is_not_failing_and_its_attempt_is_not_counted() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new = delivery(tenant, subscription, None, later(now(), secs(60)));
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
    let until = whole_micros(later(now(), secs(30)));
    let report = attempted(&new, 0, Some("not_now"), Next::NotNow(until));
    let recorded = deliveries::record(&client, &[report], now()).await.unwrap();
    assert_eq!(recorded.vitals.iter().map(|vitals| vitals.subscription_id).collect::<Vec<_>>(), [subscription]);
    let row = client
        .query_one(
            "SELECT d.state, d.held_reason, d.due_at, d.attempt, d.not_now, r.failing_since IS NULL AS well
             FROM deliveries d JOIN subscription_runtime r USING (subscription_id)",
            &[],
        )
        .await
        .unwrap();
    let state: (&str, &str, Timestamp) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(state, ("held", "rate", until));
    assert_eq!((row.get::<_, i32>(3), row.get::<_, i32>(4), row.get::<_, bool>(5)), (1, 1, true));
}

#[tokio::test]
async fn a_put_back_moves_no_delivery_that_somebody_has_claimed() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let lease = whole_micros(later(now(), secs(60)));
    let new = delivery(tenant, subscription, None, lease);
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
    assert_eq!(deliveries::claim(&client, &[claim(&new, lease)]).await.unwrap().len(), 1);

    // The message came back although whoever had it lives and attempts.
    let word = Word::PutBack(HeldReason::Slow, now());
    let put_back = Report { lease_until: Some(lease), word, ..report(&new, 1, Next::Delivered) };
    assert!(deliveries::record(&client, &[put_back], now()).await.unwrap().moved.is_empty());
    assert_eq!(deliveries::record(&client, &[report(&new, 1, Next::Delivered)], now()).await.unwrap().moved.len(), 1);
}

#[tokio::test]
async fn a_dead_letter_that_was_deleted_does_not_come_back() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new = delivery(tenant, subscription, None, whole_micros(later(now(), secs(60))));
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
    deliveries::record(&client, &[report(&new, 1, Next::Dead(DeadReason::Exhausted))], now()).await.unwrap();
    let (since, later_on) = (Timestamp::UNIX_EPOCH, later(now(), secs(600)));
    let untold = dead_letters::untold(&client, since, later_on, 10).await.unwrap();
    assert_eq!(untold.len(), 1);
    let id = DeadLetterId::new(now(), [7; 10]);
    assert!(dead_letters::of_delivery(&client, id, &untold[0].1, now()).await.unwrap().is_some());

    assert!(dead_letters::delete(&client, Some(tenant), id).await.unwrap());

    assert!(dead_letters::untold(&client, since, later_on, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_delivery_held_while_the_scheduler_finds_nothing_more_is_not_forgotten() {
    let database = Database::create().await;
    let mut scheduler = database.store.client().await.unwrap();
    let (tenant, limited) = subscribed(&scheduler).await;
    let long_ago = whole_micros(Timestamp::from_second(now().as_second() - 60).unwrap());
    deliveries::insert(&scheduler, &[delivery(tenant, limited, Some(HeldReason::Rate), long_ago)], &[], now())
        .await
        .unwrap();

    // A round that releases all there is, and has not been committed yet when the next one comes.
    let transaction = scheduler.transaction().await.unwrap();
    let due = schedule::due_subscriptions(&transaction, 10, now()).await.unwrap();
    let allowance = Allowance {
        subscription_id: due[0].subscription_id,
        limit: 10,
        lease_until: whole_micros(later(now(), secs(60))),
        bucket: Bucket { tokens: 0.0, at: None },
        not_before: now(),
        sleep: false,
        probe: false,
    };
    schedule::release(&transaction, &[allowance], now()).await.unwrap();
    let mut inserting = tokio::spawn({
        let store = database.store.clone();
        let next = delivery(tenant, limited, Some(HeldReason::Rate), whole_micros(now()));
        async move { deliveries::insert(&store.client().await.unwrap(), &[next], &[], now()).await.unwrap() }
    });
    let _ = tokio::time::timeout(Duration::from_millis(500), &mut inserting).await;
    transaction.commit().await.unwrap();
    if !inserting.is_finished() {
        inserting.await.unwrap();
    }

    let transaction = scheduler.transaction().await.unwrap();
    assert_eq!(schedule::due_subscriptions(&transaction, 10, later(now(), secs(1))).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_database_that_refuses_writes_is_not_well() {
    let database = Database::create().await;
    let read_only = database.read_only();

    assert!(read_only.ping().await.is_ok());
    assert!(read_only.ping_write().await.is_err());
    assert!(database.store.ping_write().await.is_ok());
}

#[tokio::test]
async fn a_yes_counts_although_its_attempt_is_on_record_as_failed() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new = delivery(tenant, subscription, None, now());
    deliveries::insert(&client, std::slice::from_ref(&new), &[], now()).await.unwrap();
    // A worker that stood still, and one that made the attempt again meanwhile.
    let failed = report(&new, 1, Next::RetryAt(later(now(), secs(60))));
    let arrived = report(&new, 1, Next::Delivered);
    assert!(deliveries::record(&client, &[failed], now()).await.unwrap().is_moved(new.id));

    assert!(deliveries::record(&client, std::slice::from_ref(&arrived), now()).await.unwrap().is_moved(new.id));
    assert!(!deliveries::record(&client, &[arrived], now()).await.unwrap().is_moved(new.id), "once");

    let row = deliveries::find(&client, None, new.id).await.unwrap().unwrap();
    assert_eq!((row.state, row.attempts_made), (State::Delivered, 2));
    let attempts = deliveries::attempts(&client, new.id).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_database_that_has_one_of_its_hot_tables_locked_is_not_well() {
    let database = Database::create().await;
    for table in ["outbox", "events", "deliveries", "attempts", "subscription_runtime"] {
        let mut client = database.store.client().await.unwrap();
        let lock = client.transaction().await.unwrap();
        lock.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
        assert!(database.store.ping_write().await.is_err(), "{table}");
        lock.rollback().await.unwrap();
    }
    assert!(database.store.ping_write().await.is_ok());
}

#[tokio::test]
async fn what_a_rate_allowed_and_nobody_needed_goes_back() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let (tenant, limited) = subscribed(&client).await;
    let one = delivery(tenant, limited, Some(HeldReason::Rate), whole_micros(now()));
    deliveries::insert(&client, &[one], &[], now()).await.unwrap();
    let allowance = Allowance {
        subscription_id: limited,
        limit: 5,
        lease_until: whole_micros(later(now(), secs(60))),
        bucket: Bucket { tokens: 0.0, at: Some(now()) },
        not_before: whole_micros(later(now(), secs(1))),
        sleep: false,
        probe: false,
    };

    let transaction = client.transaction().await.unwrap();
    schedule::release(&transaction, &[allowance], now()).await.unwrap();
    transaction.commit().await.unwrap();

    let left: f64 = client.query_one("SELECT tokens FROM subscription_runtime", &[]).await.unwrap().get(0);
    assert_eq!(left, 4.0);
}
