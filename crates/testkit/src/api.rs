use std::net::SocketAddr;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{Answer, World, contract, eventually};

/// The management API, as the operator calls it.
#[derive(Clone, Debug)]
pub struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    pub(crate) fn new(client: Client, address: SocketAddr, token: &str) -> Self {
        Self { client, base: format!("http://{address}"), token: token.to_owned() }
    }

    /// Calls an operation; returns the status and the body.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.ask(method, path, &[], body).await;
        (answer.status, answer.json)
    }

    /// Calls an operation with these headers.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        contract::exchange(match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(&body)).await;
        assert!((200..300).contains(&status), "POST {path} {body}: {status} {answer}");
        answer
    }

    pub async fn patch(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::PATCH, path, Some(&body)).await;
        assert_eq!(status, 200, "PATCH {path} {body}: {answer}");
        answer
    }

    /// The version of a thing.
    pub async fn etag(&self, path: &str) -> String {
        self.ask(Method::GET, path, &[], None).await.header("etag").to_owned()
    }

    /// Changes a thing if it still has this version; returns the status.
    pub async fn patch_if(&self, path: &str, etag: &str, body: Value) -> u16 {
        self.ask(Method::PATCH, path, &[("if-match", etag)], Some(&body)).await.status
    }

    /// A new tenant's id.
    pub async fn tenant(&self, name: &str) -> String {
        id(&self.post("/v1/tenants", json!({ "name": name, "external_id": name })).await)
    }

    /// A new subscription; `more` is merged into what is usual.
    pub async fn subscribe(&self, tenant: &str, url: &str, event_types: &[&str], more: Value) -> Value {
        let mut body = json!({ "tenant_id": tenant, "url": url, "event_types": event_types });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        self.post("/v1/subscriptions", body).await
    }

    /// The deliveries of an event, once there are `count`.
    pub async fn deliveries(&self, event: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} deliveries of {event}"), || async {
            let list = self.get(&format!("/v1/deliveries?event_id={event}&limit=200")).await;
            let data = list["data"].as_array().cloned().unwrap_or_default();
            (data.len() >= count).then_some(data)
        })
        .await
    }

    /// The one delivery of an event, with its attempts, once it is in `state`.
    pub async fn delivery_in(&self, event: &str, state: &str) -> Value {
        let delivery = id(&self.deliveries(event, 1).await[0]);
        eventually(&format!("{delivery} is {state}"), || async {
            let delivery = self.get(&format!("/v1/deliveries/{delivery}")).await;
            (delivery["state"] == state).then_some(delivery)
        })
        .await
    }
}

impl World {
    /// An operator's source of Stripe events for a tenant, and Stripe.
    pub async fn stripe_for(&self, tenant: &str) -> crate::Stripe {
        self.stripe(json!({ "kind": "tenant", "tenant_id": tenant })).await
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}
