//! Day partitions: made ahead, dropped by age, over the ends of days, months and years.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use posthorn_store::events::{self, Accepted};
use posthorn_store::{Client, partitions};
use posthorn_testkit::Database;

use crate::samples::event;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The days of a table's partitions, oldest first.
async fn days(client: &Client, table: &str) -> Vec<String> {
    let rows = client
        .query(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1::text)",
            &[&table],
        )
        .await
        .unwrap();
    let prefix = format!("{table}_");
    let mut days: Vec<String> =
        rows.iter().map(|row| row.get::<_, String>(0).strip_prefix(&prefix).unwrap().to_owned()).collect();
    days.sort();
    days
}

async fn drop_all(client: &Client) {
    for table in ["events", "deliveries", "attempts", "event_dedup"] {
        for day in days(client, table).await {
            client.batch_execute(&format!("DROP TABLE {table}_{day}")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_week_is_made_ahead_over_the_end_of_a_month_and_of_a_year() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    drop_all(&client).await;

    partitions::ensure(&client, at("2026-12-28T23:59:59.999Z")).await.unwrap();
    let week =
        ["20261227", "20261228", "20261229", "20261230", "20261231", "20270101", "20270102", "20270103", "20270104"];
    for table in ["events", "deliveries", "attempts", "event_dedup"] {
        assert_eq!(days(&client, table).await, week, "{table}");
    }

    // A moment later it is another day.
    let midnight = at("2026-12-29T00:00:00Z");
    assert_eq!(partitions::days_ahead(&client, midnight).await.unwrap(), 6);
    partitions::ensure(&client, midnight).await.unwrap();
    assert_eq!(days(&client, "events").await.last().unwrap(), "20270105");
    assert_eq!(partitions::days_ahead(&client, midnight).await.unwrap(), partitions::DAYS_AHEAD);
}

#[tokio::test]
async fn what_lies_wholly_before_the_retention_is_dropped_and_nothing_else() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    drop_all(&client).await;
    for day in ["2027-01-29T12:00:00Z", "2027-02-27T12:00:00Z"] {
        partitions::ensure(&client, at(day)).await.unwrap();
    }

    // Thirty days before the 2nd of March is the 31st of January, and eight are the 22nd of February.
    let now = at("2027-03-02T00:00:00Z");
    let dropped = partitions::drop_old(&client, 30, 8, now).await.unwrap();

    for table in ["events", "deliveries", "attempts"] {
        assert_eq!(days(&client, table).await[0], "20270131", "{table}");
    }
    assert_eq!(days(&client, "event_dedup").await[0], "20270226");
    // Of three tables the 28th to the 30th, and of the keys all of the first nine days.
    assert_eq!(dropped.len(), 3 * 3 + 9);
    assert!(partitions::drop_old(&client, 30, 8, now).await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_has_to_write_says_when_partitions_run_short() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let now = Timestamp::now();
    assert_eq!(partitions::check(&database.store, now).await, Ok(()));

    let later = |days: i64| {
        let day: Date = now.to_zoned(TimeZone::UTC).date();
        day.saturating_add(jiff::Span::new().days(days)).to_zoned(TimeZone::UTC).unwrap().timestamp()
    };
    assert_eq!(partitions::check(&database.store, later(5)).await, Ok(()));
    assert_eq!(partitions::check(&database.store, later(6)).await, Err("partitions for 1 more days only".to_owned()));

    // Beyond the last one nothing is accepted, which is our fault and not the event's.
    let beyond = later(8);
    let refused = events::accept(&client, &[event("a", beyond)], beyond).await.unwrap_err();
    assert!(refused.to_string().contains("database"), "{refused}");
    partitions::ensure(&client, beyond).await.unwrap();
    let accepted = events::accept(&client, &[event("a", beyond)], beyond).await.unwrap();
    assert!(matches!(accepted[0], Accepted::New { .. }));
}
