//! A sealing key is given up: what it sealed is sealed anew, beside whatever else goes on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthorn_core::id::RejectedRequestId;
use posthorn_core::subscription::HeaderValue;
use posthorn_store::rejected_requests::{self, Rejected};
use posthorn_store::reseal::{self, Count, Shelf};
use posthorn_store::seal::{Error, Sealer};
use posthorn_store::subscriptions::{self, Headers, SealedIdentity};
use posthorn_testkit::Database;
use uuid::Uuid;

use crate::samples::subscribed;

const K1: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const K2: &str = "k2:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// Begins like the new one.
const K22: &str = "k22:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn sealer(keys: &str) -> Sealer {
    Sealer::parse(&keys.to_owned().into()).unwrap()
}

fn rejected(number: u8, sealed_by: Option<&Sealer>) -> Rejected {
    let id = RejectedRequestId::new(Timestamp::now(), [number; 10]);
    Rejected {
        id,
        source_id: None,
        tenant_id: None,
        reason: "unknown-source".into(),
        detail: String::new(),
        received_at: Timestamp::now(),
        address: "192.0.2.1".into(),
        body_bytes: 0,
        request: sealed_by.map(|sealer| sealer.seal(id.as_uuid(), format!("request {number}").as_bytes())),
    }
}

fn count(key_id: &str, values: i64) -> Count {
    Count { shelf: Shelf::RejectedRequests.name(), key_id: key_id.into(), values }
}

#[tokio::test]
async fn what_an_older_key_sealed_is_sealed_anew_page_by_page_and_what_does_not_open_is_told_and_left() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (k1, k2, both) = (sealer(K1), sealer(K2), sealer(&format!("{K2},{K1}")));
    let mut rows: Vec<Rejected> = (0..7).map(|number| rejected(number, Some(&k1))).collect();
    rows.push(rejected(7, Some(&k2)));
    rows.push(rejected(8, None));
    rows.push(rejected(9, Some(&sealer(K22))));
    rejected_requests::insert(&client, &rows).await.unwrap();
    assert_eq!(reseal::census(&client).await.unwrap(), [count("k1", 7), count("k2", 1), count("k22", 1)]);

    let (mut resealed, mut unopened, mut pages, mut after) = (0, Vec::new(), 0, Uuid::nil());
    while let Some(page) = reseal::page(&client, &both, Shelf::RejectedRequests, after, 3).await.unwrap() {
        resealed += page.resealed;
        unopened.extend(page.unopened);
        pages += 1;
        after = page.last;
    }

    assert_eq!((resealed, pages), (7, 3));
    assert_eq!(unopened, [(*rows[9].id.as_uuid(), Error::UnknownKey { key_id: "k22".into() })]);
    assert_eq!(reseal::census(&client).await.unwrap(), [count("k2", 8), count("k22", 1)]);
    for (number, row) in rows[..8].iter().enumerate() {
        let found = rejected_requests::find(&client, None, row.id).await.unwrap().unwrap();
        assert_eq!(
            k2.open(row.id.as_uuid(), &found.request.unwrap()).unwrap(),
            format!("request {number}").into_bytes()
        );
    }
}

#[tokio::test]
async fn the_key_of_a_client_certificate_is_sealed_anew_as_well() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (_, id) = subscribed(&client).await;
    let (mut row, _) = subscriptions::find(&client, None, id).await.unwrap().unwrap();
    let key = sealer(K1).seal(id.as_uuid(), b"a key");
    row.tls.client_identity = Some(SealedIdentity { certificate: "a certificate".into(), key });
    subscriptions::update(&client, &row).await.unwrap();

    let both = sealer(&format!("{K2},{K1}"));
    let page = reseal::page(&client, &both, Shelf::SubscriptionKeys, Uuid::nil(), 3).await.unwrap().unwrap();

    assert_eq!((page.resealed, page.unopened.len()), (1, 0));
    let (row, _) = subscriptions::find(&client, None, id).await.unwrap().unwrap();
    assert_eq!(sealer(K2).open(id.as_uuid(), &row.tls.client_identity.unwrap().key).unwrap(), b"a key");
    subscriptions::delete(&client, None, id, Timestamp::now()).await.unwrap();
    assert_eq!(reseal::census(&client).await.unwrap(), [], "gone at once");
}

#[tokio::test]
async fn headers_are_sealed_with_the_new_key_and_counted() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (_, id) = subscribed(&client).await;
    let (mut row, _) = subscriptions::find(&client, None, id).await.unwrap().unwrap();
    let given = BTreeMap::from([("Authorization".to_owned(), HeaderValue::Plain("Bearer 1".to_owned()))]);
    row.headers = Headers::seal(&sealer(K1), id, given);
    subscriptions::update(&client, &row).await.unwrap();
    let count = |key_id: &str| Count { shelf: "subscription_headers", key_id: key_id.into(), values: 1 };
    assert_eq!(reseal::census(&client).await.unwrap(), [count("k1")]);

    let both = sealer(&format!("{K2},{K1}"));
    let page = reseal::page(&client, &both, Shelf::SubscriptionHeaders, Uuid::nil(), 3).await.unwrap().unwrap();

    assert_eq!((page.resealed, page.unopened.len()), (1, 0));
    assert_eq!(reseal::census(&client).await.unwrap(), [count("k2")]);
    let (row, _) = subscriptions::find(&client, None, id).await.unwrap().unwrap();
    assert_eq!(row.headers.open(&sealer(K2), id).unwrap()["Authorization"].expose(), "Bearer 1");
    subscriptions::delete(&client, None, id, Timestamp::now()).await.unwrap();
    assert_eq!(reseal::census(&client).await.unwrap(), [], "gone at once");
}

#[tokio::test]
async fn another_key_of_the_right_name_is_told_from_the_right_one() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let row = rejected(1, Some(&sealer(K1)));
    rejected_requests::insert(&client, &[row]).await.unwrap();
    let of_another = K2.replace("k2:", "k1:");
    for (keys, opens) in [(K1, true), (of_another.as_str(), false), (K2, true)] {
        let opened = reseal::opens(&client, &sealer(keys), Shelf::RejectedRequests).await.unwrap();
        assert_eq!(opened, opens, "{keys}");
    }
}

#[tokio::test]
async fn nothing_is_left_to_seal_anew_where_nothing_is_sealed() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    for shelf in Shelf::ALL {
        assert!(reseal::page(&client, &sealer(K1), shelf, Uuid::nil(), 3).await.unwrap().is_none());
    }
    assert_eq!(reseal::census(&client).await.unwrap(), []);
}
