use reqwest::Client;
use ring::hmac;
use serde_json::{Value, json};

use crate::contract;

/// Stripe, with a secret that a source of the world knows.
#[derive(Clone, Debug)]
pub struct Stripe {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) secret: String,
}

impl Stripe {
    /// Sends a new event; returns its id at Posthorn.
    pub async fn send(&self, event_type: &str, object: Value) -> String {
        let body = self.event(event_type, object);
        let (status, answer) = self.post(&body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["duplicate"], false, "{answer}");
        answer["event_id"].as_str().expect("an id").to_owned()
    }

    /// An event's body, with an id of its own.
    pub fn event(&self, event_type: &str, object: Value) -> String {
        let id = format!("evt_{}", uuid::Uuid::new_v4().simple());
        let created = jiff::Timestamp::now().as_second();
        json!({ "id": id, "object": "event", "created": created, "type": event_type, "data": { "object": object } })
            .to_string()
    }

    /// Posts a body with a good signature.
    pub async fn post(&self, body: &str) -> (u16, Value) {
        let now = jiff::Timestamp::now().as_second();
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
        self.post_signed(body, &format!("t={now},v1={}", hex::encode(tag))).await
    }

    /// Posts a body with whatever signature.
    pub async fn post_signed(&self, body: &str, signature: &str) -> (u16, Value) {
        let request = self.client.post(&self.url).header("stripe-signature", signature).body(body.to_owned());
        let answer = contract::exchange(request).await;
        (answer.status, answer.json)
    }
}
