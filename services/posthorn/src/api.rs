//! The management API, as the commands call it.

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::error::CliError;
use crate::refusal::Refusal;

/// What to do about a token that the API does not know.
const TOKEN_HINT: &str =
    "set POSTHORN_OPERATOR_TOKEN (or --token) to an operator's token or a tenant's key of this deployment";

/// Where the API is, and as whom to call it.
#[derive(Clone, Debug, Args)]
pub struct Api {
    /// The dispatcher's URL.
    #[arg(long, env = "POSTHORN_API_URL", default_value = "http://127.0.0.1:8081")]
    api_url: String,
    /// The operator's token or a tenant's key.
    #[arg(long, env = "POSTHORN_OPERATOR_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    #[arg(skip)]
    client: std::sync::OnceLock<reqwest::Client>,
}

impl Api {
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, CliError> {
        self.call(self.client()?.get(self.url(path, query)?)).await
    }

    /// All items of a list, page by page.
    pub async fn all(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", "200"));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query).await?;
            if let Value::Array(data) = page["data"].take() {
                items.extend(data);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(self.client()?.post(self.url(path, &[])?).body(body.to_string())).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(self.client()?.patch(self.url(path, &[])?).body(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        self.call(self.client()?.put(self.url(path, &[])?).body(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.call(self.client()?.delete(self.url(path, &[])?)).await.map(|_| ())
    }

    /// Deletes what the query means of a collection.
    pub async fn delete_all(&self, path: &str, query: &[(&str, &str)]) -> Result<(), CliError> {
        self.call(self.client()?.delete(self.url(path, query)?)).await.map(|_| ())
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<Value, CliError> {
        let token = self.token.as_ref().ok_or(CliError::Missing("POSTHORN_OPERATOR_TOKEN (or --token)"))?;
        let request = request.bearer_auth(token.expose_secret()).header("content-type", "application/json");
        let response =
            request.send().await.map_err(|error| CliError::unanswered(error, "POSTHORN_API_URL (or --api-url)"));
        answer(response?).await.map_err(|error| match error {
            CliError::Refused(refusal) => CliError::Refused(refusal.with_hint(TOKEN_HINT)),
            other => other,
        })
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, CliError> {
        let base = self.api_url.trim_end_matches('/');
        let mut url: reqwest::Url =
            format!("{base}{path}").parse().map_err(|_| CliError::NoUrl("POSTHORN_API_URL (or --api-url)"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn client(&self) -> Result<&reqwest::Client, CliError> {
        if self.client.get().is_none() {
            let _ = self.client.set(client()?);
        }
        self.client.get().ok_or(CliError::Missing("an HTTP client"))
    }
}

/// A client for our own services.
pub fn client() -> Result<reqwest::Client, CliError> {
    Ok(reqwest::Client::builder().timeout(std::time::Duration::from_secs(30)).build()?)
}

/// The JSON of an answer; any status but 2xx is a refusal.
pub async fn answer(response: reqwest::Response) -> Result<Value, CliError> {
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() {
        return Err(CliError::Refused(Refusal::new(status.as_u16(), body)));
    }
    Ok(if body.is_empty() { Value::Null } else { serde_json::from_str(&body)? })
}
