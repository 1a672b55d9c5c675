//! The management API, as an operator would use it. What one dispatcher does not answer, the other is asked.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;
use uuid::Uuid;

use crate::error::{ChaosError, Result, unexpected};

/// Most that a page may have.
const PAGE: &str = "200";
const TRIES: usize = 20;

#[derive(Clone, Debug)]
pub struct Api {
    pub client: Client,
    /// Of each dispatcher.
    pub urls: Vec<String>,
    pub token: String,
}

impl Api {
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Hands every item of a list to `each`.
    pub async fn every(&self, path: &str, mut each: impl FnMut(&Value)) -> Result<()> {
        let mut cursor: Option<String> = None;
        loop {
            let more = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}?limit={PAGE}{more}")).await?;
            page["data"].as_array().into_iter().flatten().for_each(&mut each);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(()),
            }
        }
    }

    /// A call that fails on the way, or with 5xx, is made again.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut last = unexpected("no dispatcher to ask");
        for (_, url) in (0..TRIES).zip(self.urls.iter().cycle()) {
            let mut request = self.client.request(method.clone(), format!("{url}{path}")).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            match answer(request, path).await {
                Ok(value) => return Ok(value),
                Err(error @ ChaosError::Refused { status: 400..=499, .. }) => return Err(error),
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Err(last)
    }
}

async fn answer(request: reqwest::RequestBuilder, what: &str) -> Result<Value> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        return Err(ChaosError::Refused { what: what.to_owned(), status: status.as_u16(), body });
    }
    serde_json::from_str(&body).map_err(|error| unexpected(format!("{what}: {error}")))
}

/// The UUID in an id as the API writes it, `evt_019f…`.
pub fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.rsplit('_').next()?).ok()
}

/// The UUID in a field of an item.
pub fn id_in(item: &Value, field: &str) -> Option<Uuid> {
    item[field].as_str().and_then(id)
}
