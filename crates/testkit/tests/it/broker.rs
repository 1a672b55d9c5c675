//! The broker as the services use it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use posthorn_bus::topology::{DEAD_QUEUE, EVENT, EVENTS, EVENTS_QUEUE};
use posthorn_bus::{Consumer, Disposition, Gate, Handler, Link, Outgoing, PublishError, Settings, consume, publisher};
use posthorn_testkit::{Broker, eventually};
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn settings(broker: &Broker) -> Settings {
    Settings {
        url: SecretString::from(broker.url.as_str()),
        publish_window: 64,
        publish_queue: 64,
        confirm_timeout_ms: 5_000,
    }
}

fn outgoing(routing_key: &str, body: &str) -> Outgoing {
    Outgoing {
        exchange: EVENTS,
        routing_key: routing_key.to_owned(),
        message_id: body.to_owned(),
        traceparent: String::new(),
        body: body.as_bytes().to_vec(),
    }
}

fn open() -> Gate {
    Arc::new(|| Box::pin(async {}))
}

/// A consumer whose handler is a plain function.
fn consumer(queue: &str, handle: impl Fn(posthorn_bus::Message) -> Disposition + Send + Sync + 'static) -> Consumer {
    let handle = Arc::new(handle);
    let handler: Handler = Arc::new(move |message| {
        let handle = Arc::clone(&handle);
        Box::pin(async move { handle(message) })
    });
    Consumer { queue: queue.to_owned(), prefetch: 10, handler }
}

#[tokio::test]
async fn a_message_that_reaches_no_queue_is_an_error_and_one_refused_by_a_full_queue_too() {
    let broker = Broker::create().await;
    let (publisher, publishing) = publisher(settings(&broker), "test");
    tokio::spawn(publishing);
    eventually("a connection", || async { publisher.link().is_up().then_some(()) }).await;

    assert_eq!(publisher.publish(outgoing("nowhere", "a")).await, Err(PublishError::Unroutable));
    assert_eq!(publisher.publish(outgoing(EVENT, "b")).await, Ok(()));

    let limit = json!({ "pattern": "events", "definition": { "max-length": 1 }, "apply-to": "queues" });
    broker.manage(reqwest::Method::PUT, &format!("policies/{}/full", broker.vhost()), Some(limit)).await;
    eventually("the queue is full", || async {
        (publisher.publish(outgoing(EVENT, "c")).await == Err(PublishError::Refused)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rejected_message_becomes_a_dead_letter_that_says_so() {
    let broker = Broker::create().await;
    let (publisher, publishing) = publisher(settings(&broker), "test");
    tokio::spawn(publishing);
    eventually("a connection", || async { publisher.link().is_up().then_some(()) }).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let clerk = Arc::clone(&told);
    let consumers = vec![
        consumer(EVENTS_QUEUE, |_| Disposition::DeadLetter),
        consumer(DEAD_QUEUE, move |message| {
            clerk.lock().unwrap().push((message.body, message.death));
            Disposition::Done
        }),
    ];
    let stop = CancellationToken::new();
    let consuming = tokio::spawn({
        let (settings, stop) = (settings(&broker), stop.clone());
        async move { consume(settings, "test", consumers, open(), Link::default(), stop).await }
    });

    publisher.publish(outgoing(EVENT, "poison")).await.unwrap();

    eventually("a dead letter", || async { (!told.lock().unwrap().is_empty()).then_some(()) }).await;
    assert_eq!(told.lock().unwrap()[0], (b"poison".to_vec(), Some("rejected".to_owned())));
    stop.cancel();
    consuming.await.unwrap();
}

#[tokio::test]
async fn a_handler_that_panics_twenty_times_makes_a_dead_letter_by_the_delivery_limit() {
    let broker = Broker::create().await;
    let (publisher, publishing) = publisher(settings(&broker), "test");
    tokio::spawn(publishing);
    eventually("a connection", || async { publisher.link().is_up().then_some(()) }).await;
    let (tries, death) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
    let (counter, clerk) = (Arc::clone(&tries), Arc::clone(&death));
    let consumers = vec![
        consumer(EVENTS_QUEUE, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose")
        }),
        consumer(DEAD_QUEUE, move |message| {
            *clerk.lock().unwrap() = message.death;
            Disposition::Done
        }),
    ];
    let stop = CancellationToken::new();
    tokio::spawn(consume(settings(&broker), "test", consumers, open(), Link::default(), stop.clone()));

    publisher.publish(outgoing(EVENT, "poison")).await.unwrap();

    eventually("a dead letter", || async { death.lock().unwrap().is_some().then_some(()) }).await;
    assert_eq!(death.lock().unwrap().as_deref(), Some("delivery_limit"));
    assert_eq!(tries.load(Ordering::Relaxed), 21);
    stop.cancel();
}

#[tokio::test]
async fn after_a_stall_nothing_is_taken_until_the_gate_opens_and_then_the_message_comes_again() {
    let broker = Broker::create().await;
    let (publisher, publishing) = publisher(settings(&broker), "test");
    tokio::spawn(publishing);
    eventually("a connection", || async { publisher.link().is_up().then_some(()) }).await;
    let (handled, (is_well, well)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let (counter, when_handled) = (Arc::clone(&handled), well.clone());
    let consumers = vec![consumer(EVENTS_QUEUE, move |message| {
        counter.fetch_add(1, Ordering::Relaxed);
        match (*when_handled.borrow(), message.redelivered) {
            (true, true) => Disposition::Done,
            _ => Disposition::Stall,
        }
    })];
    let waits = Arc::new(AtomicUsize::new(0));
    let entered = Arc::clone(&waits);
    // Open the first time, then only once all is well.
    let gate: Gate = Arc::new(move || {
        let (mut well, first) = (well.clone(), entered.fetch_add(1, Ordering::Relaxed) == 0);
        Box::pin(async move {
            if !first {
                well.wait_for(|well| *well).await.unwrap();
            }
        })
    });
    let stop = CancellationToken::new();
    tokio::spawn(consume(settings(&broker), "test", consumers, gate, Link::default(), stop.clone()));

    publisher.publish(outgoing(EVENT, "a")).await.unwrap();

    eventually("the gate is asked again", || async { (waits.load(Ordering::Relaxed) == 2).then_some(()) }).await;
    assert_eq!(handled.load(Ordering::Relaxed), 1);
    is_well.send(true).unwrap();
    eventually("it comes again", || async { (handled.load(Ordering::Relaxed) == 2).then_some(()) }).await;
    stop.cancel();
}
