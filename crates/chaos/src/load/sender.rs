//! The providers at work: each event is sent until it is accepted, as a provider does.
//!
//! The load is open: events come at their rate whether or not earlier ones were answered. Every try has a signature
//! of its own. 503 has to say when to come back; any 4xx for a genuine event is a violation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::header::RETRY_AFTER;

use crate::api::id_in;
use crate::clock::Clock;
use crate::journal::Journal;
use crate::load::plan::{Plan, Planned, Repeat};
use crate::load::provider::write;
use crate::load::stage::Stage;
use crate::receiver::short_digest;

/// Longest wait for an answer; providers give up after 5 to 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before an unanswered request is made again.
const PAUSE: Duration = Duration::from_millis(400);
/// However long a gateway asks for: what is measured is Posthorn's recovery, not our waiting.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub struct Sender {
    pub client: Client,
    pub gateways: Vec<String>,
    pub journal: Arc<Journal>,
    pub stage: Arc<Stage>,
    pub clock: Clock,
    /// Events under way.
    pub open: AtomicU32,
    pub stopped: AtomicBool,
}

enum Outcome {
    Accepted,
    After(Duration),
}

impl Sender {
    /// Sends what the plan says until it is told to stop.
    pub async fn run(self: Arc<Self>, mut plan: Plan) {
        let mut next = tokio::time::Instant::now();
        while !self.stopped.load(Ordering::Relaxed) {
            let planned = plan.next();
            next += planned.pause;
            tokio::time::sleep_until(next).await;
            self.start(planned);
        }
    }

    /// Sends an event in the background; returns its number.
    pub fn start(self: &Arc<Self>, planned: Planned) -> u32 {
        let flavour = self.stage.flavour(planned.flavour);
        let number = self.journal.plan(planned.flavour, planned.fate, Arc::clone(&flavour.expected), self.clock.now());
        let body = write(flavour, number, planned.bytes, self.clock.wall());
        self.journal.written(number, body.len(), short_digest(&body));
        self.open.fetch_add(1, Ordering::Relaxed);
        let sender = Arc::clone(self);
        tokio::spawn(async move {
            sender.send(number, planned, &body).await;
            sender.open.fetch_sub(1, Ordering::Relaxed);
        });
        number
    }

    async fn send(&self, number: u32, planned: Planned, body: &Bytes) {
        match planned.repeat {
            Repeat::Never => self.insist(number, 0, planned.flavour, body).await,
            Repeat::AtOnce => {
                let first = self.insist(number, 0, planned.flavour, body);
                tokio::join!(first, self.insist(number, 1, planned.flavour, body));
            }
            Repeat::Later(pause) => {
                self.insist(number, 0, planned.flavour, body).await;
                tokio::time::sleep(pause).await;
                self.insist(number, 1, planned.flavour, body).await;
            }
        }
    }

    /// Until it is accepted, at one gateway after the other.
    async fn insist(&self, number: u32, offset: usize, flavour: u8, body: &Bytes) {
        let first = number as usize + offset;
        for turn in first.. {
            let gateway = &self.gateways[turn % self.gateways.len()];
            match self.attempt(gateway, number, flavour, body).await {
                Outcome::Accepted => return,
                Outcome::After(pause) => tokio::time::sleep(pause).await,
            }
        }
    }

    async fn attempt(&self, gateway: &str, number: u32, flavour: u8, body: &Bytes) -> Outcome {
        let request = self.stage.keys.sign(self.stage.flavour(flavour), number, body, self.clock.wall());
        let mut post = self.client.post(format!("{gateway}/webhooks/{}", request.path)).timeout(PATIENCE);
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        self.journal.requested(number);
        let answered = async {
            let response = post.body(request.body).send().await?;
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Ok::<_, reqwest::Error>((response.status().as_u16(), retry_after, response.text().await?))
        };
        match answered.await {
            Err(_) => {
                self.journal.unanswered();
                Outcome::After(PAUSE)
            }
            Ok((200, _, text)) => self.accepted(number, &text),
            Ok((503, Some(seconds), _)) => {
                self.journal.unavailable();
                Outcome::After(Duration::from_secs(seconds).min(LONGEST_PAUSE))
            }
            Ok((status, _, text)) => {
                self.journal.refused(format!("event {number} was answered {status} by {gateway}: {text}"));
                Outcome::After(LONGEST_PAUSE)
            }
        }
    }

    fn accepted(&self, number: u32, text: &str) -> Outcome {
        let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        match (id_in(&answer, "event_id"), answer["duplicate"].as_bool()) {
            (Some(id), Some(duplicate)) => {
                self.journal.accepted(number, id, duplicate, self.clock.now());
                Outcome::Accepted
            }
            _ => {
                self.journal.refused(format!("event {number} was answered 200 and no id: {text}"));
                Outcome::After(LONGEST_PAUSE)
            }
        }
    }
}
