//! Everything that is compared, read once: Posthorn's lists by its API, its attempts from the record.
//!
//! Attempts are in the API one delivery at a time, so only a sample of them is read there and compared.

use std::collections::HashMap;
use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::api::{Api, id_in};
use crate::clock::{Millis, seconds};
use crate::error::Result;
use crate::fault::drill::Episode;
use crate::journal::{Arrival, Entry, Records};
use crate::load::stage::Stage;
use crate::world::services::Blow;

/// An event and a subscription that is to get it: the event's number, the subscription's index.
pub type Pair = (u32, u16);

/// A delivery as the API lists it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: Uuid,
    pub state: String,
    pub attempts_made: u32,
}

/// An attempt on record.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub number: i32,
    /// `None` without an answer.
    pub status: Option<u16>,
    pub failed: bool,
    /// By the worker's clock, in milliseconds since the run began.
    pub started: i64,
}

/// After an answer a worker needs no longer to record it, where the database takes writes.
const RECORDED_WITHIN: Millis = 3000;
/// Between reading a request whole and the moment that we note for it.
const UNCERTAIN: Millis = 200;

pub struct Books {
    pub records: Records,
    pub stage: std::sync::Arc<Stage>,
    pub episodes: Vec<Episode>,
    pub blows: Vec<Blow>,
    pub replicas: Vec<String>,
    /// `duplicates` of every event of the API, by id.
    pub events: HashMap<Uuid, u64>,
    pub deliveries: HashMap<Pair, Delivery>,
    /// Deliveries that name an event or subscription that is not known here, or a pair a second time.
    pub foreign: Vec<String>,
    /// Reasons of dead letters.
    pub dead_letters: HashMap<Pair, Vec<String>>,
    /// In order.
    pub attempts: HashMap<Uuid, Vec<Attempt>>,
}

impl Books {
    /// Reads what the API and the record say.
    pub async fn read(&mut self, api: &Api, database: &Client, began: jiff::Timestamp) -> Result<()> {
        let events = &mut self.events;
        api.every("/v1/events", |event| {
            if let Some(id) = id_in(event, "id") {
                events.insert(id, event["duplicates"].as_u64().unwrap_or_default());
            }
        })
        .await?;
        let mut listed = Vec::new();
        api.every("/v1/deliveries", |delivery| {
            let row = Delivery {
                id: id_in(delivery, "id").unwrap_or_default(),
                state: delivery["state"].as_str().unwrap_or_default().to_owned(),
                attempts_made: u32::try_from(delivery["attempts_made"].as_u64().unwrap_or_default())
                    .unwrap_or_default(),
            };
            listed.push((id_in(delivery, "event_id"), id_in(delivery, "subscription_id"), row));
        })
        .await?;
        for (event, subscription, row) in listed {
            let Some(pair) = self.pair(event, subscription) else {
                self.foreign.push(format!("{row:?} of {event:?} to {subscription:?}"));
                continue;
            };
            if let Some(other) = self.deliveries.insert(pair, row) {
                self.foreign.push(format!("{other:?} is a second one: {}", self.describe(pair)));
            }
        }
        let mut letters = Vec::new();
        api.every("/v1/dead-letters", |letter| {
            let reason = letter["reason"].as_str().unwrap_or_default().to_owned();
            letters.push((id_in(letter, "event_id"), id_in(letter, "subscription_id"), reason));
        })
        .await?;
        for (event, subscription, reason) in letters {
            match self.pair(event, subscription) {
                Some(pair) => self.dead_letters.entry(pair).or_default().push(reason),
                None => self.foreign.push(format!("a dead letter ({reason}) of {event:?} to {subscription:?}")),
            }
        }
        self.read_attempts(database, began).await
    }

    async fn read_attempts(&mut self, database: &Client, began: jiff::Timestamp) -> Result<()> {
        const ATTEMPTS: &str = "SELECT delivery_id, number, status_code, error IS NOT NULL,
            (extract(epoch FROM started_at) * 1000)::bigint FROM attempts ORDER BY delivery_id, generation, number";
        let began = began.as_millisecond();
        let rows = database.query_raw(ATTEMPTS, std::iter::empty::<&str>()).await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            let status: Option<i32> = row.get(2);
            let started: i64 = row.get(4);
            self.attempts.entry(row.get(0)).or_default().push(Attempt {
                number: row.get(1),
                status: status.and_then(|status| u16::try_from(status).ok()),
                failed: row.get(3),
                started: started - began,
            });
        }
        Ok(())
    }

    fn pair(&self, event: Option<Uuid>, subscription: Option<Uuid>) -> Option<Pair> {
        Some((self.records.number_of(event?)?, self.stage.index_of(subscription?)?))
    }

    /// Every pair that there has to be: by what the sender saw accepted, and by what the stage says of it.
    pub fn expected(&self) -> impl Iterator<Item = Pair> {
        let accepted = self.records.numbered().filter(|(_, entry)| entry.event_id.is_some());
        accepted.flat_map(|(number, entry)| entry.expected.iter().map(move |subscription| (number, *subscription)))
    }

    pub fn entry(&self, number: u32) -> &Entry {
        &self.records.entries[number as usize]
    }

    /// Arrivals of a pair, in order.
    pub fn arrivals(&self, (number, subscription): Pair) -> Vec<Arrival> {
        let all = self.entry(number).arrivals.iter();
        all.filter(|arrival| arrival.subscription == subscription).copied().collect()
    }

    pub fn attempts_of(&self, pair: Pair) -> &[Attempt] {
        let delivery = self.deliveries.get(&pair);
        delivery.and_then(|delivery| self.attempts.get(&delivery.id)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Why what was answered then may not be on record: a worker was killed or frozen before it could record it.
    pub fn why_unrecorded(&self, arrival: &Arrival) -> Option<String> {
        let from = arrival.at.saturating_sub(UNCERTAIN);
        let mut to = arrival.answered.saturating_add(RECORDED_WITHIN);
        // A worker keeps what it cannot record.
        for episode in self.episodes.iter().filter(|episode| episode.kind.holds_up_records()) {
            if episode.from <= to && arrival.at <= episode.lifted {
                to = to.max(episode.lifted.saturating_add(RECORDED_WITHIN));
            }
        }
        // Where it could not be told who sent it, either may have been hit.
        let is_worker = |blow: &&Blow| match arrival.worker {
            Some(worker) => usize::from(worker) == blow.replica,
            None => self.replicas[blow.replica].starts_with("worker"),
        };
        let blow = self.blows.iter().filter(is_worker).find(|blow| blow.from <= to && from <= blow.to)?;
        Some(format!("{} was {} at {}", self.replicas[blow.replica], blow.how, seconds(blow.from)))
    }

    /// All that is known of a pair.
    pub fn describe(&self, pair: Pair) -> String {
        let entry = self.entry(pair.0);
        let subscription = &self.stage.subscriptions[usize::from(pair.1)];
        let mut text = format!(
            "event {} ({:?}, {}, {} bytes, accepted {}) to subscription {} ({}, {:?})",
            pair.0,
            entry.event_id,
            self.stage.flavour(entry.flavour).name,
            entry.bytes,
            entry.accepted.map(seconds).unwrap_or_default(),
            pair.1,
            subscription.id,
            subscription.nature,
        );
        let delivery =
            self.deliveries.get(&pair).map(|delivery| (&delivery.id, &delivery.state, delivery.attempts_made));
        let _ = write!(text, "\n         row {delivery:?}, dead letters {:?}", self.dead_letters.get(&pair));
        for attempt in self.attempts_of(pair) {
            let started = attempt.started as f64 / 1000.0;
            let _ = write!(text, "\n         attempt {} at {started:.3} s: {:?}", attempt.number, attempt.status);
        }
        let arrivals = self.arrivals(pair);
        for Arrival { at, answer, answered, worker, .. } in &arrivals {
            let from = worker.map_or("whom nobody knows", |worker| &self.replicas[usize::from(worker)]);
            let (at, until) = (seconds(*at), seconds(*answered));
            let _ = write!(text, "\n         arrived {at} from {from}, {answer:?} until {until}");
        }
        let from = entry.accepted.unwrap_or(entry.sent).saturating_sub(1000);
        let to = arrivals.last().map_or(from, |arrival| arrival.answered).saturating_add(5000);
        for episode in self.episodes.iter().filter(|episode| episode.from <= to && from <= episode.lifted + 10_000) {
            let Episode { kind, detail, from, lifted, .. } = episode;
            let _ = write!(text, "\n         {kind} {detail} from {} to {}", seconds(*from), seconds(*lifted));
        }
        text
    }
}
