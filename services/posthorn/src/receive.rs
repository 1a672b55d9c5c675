//! `posthorn receive`: an endpoint that shows what arrives.

use std::path::PathBuf;
use std::sync::Arc;

use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use clap::Args;
use jiff::Timestamp;
use posthorn_core::request::Headers;
use posthorn_core::signature::standard::{self, SigningSecret};
use secrecy::ExposeSecret as _;

use crate::error::CliError;
use crate::say;
use crate::send::read_secret;

#[derive(Clone, Debug, Args)]
pub struct Receive {
    /// The port to listen on.
    #[arg(long, default_value_t = 8099)]
    port: u16,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The subscription's secret; without one, signatures are shown and not judged.
    #[arg(long, env = "POSTHORN_RECEIVE_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// A file that holds the secret. Read anew for each request, so it may come later.
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// What to answer.
    #[arg(long, default_value_t = 200)]
    status: u16,
}

impl Receive {
    pub async fn run(self) -> Result<(), CliError> {
        let listener = posthorn_process::http::bind(&self.host, self.port)?;
        say(format_args!("receiving on http://{}", listener.local_addr()?));
        let receiver = Data::from(Arc::new(self));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(receiver.clone())
                .app_data(web::PayloadConfig::new(8 << 20))
                .default_service(web::to(show))
        })
        .workers(1)
        .shutdown_timeout(2)
        .listen(listener)?
        .run();
        Ok(server.await?)
    }

    fn secret(&self) -> Result<Option<SigningSecret>, CliError> {
        let text = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => read_secret(path)?.expose_secret().to_owned(),
            (None, None) => return Ok(None),
        };
        SigningSecret::parse(&text).map(Some).map_err(|error| CliError::Secret(error.to_string()))
    }
}

async fn show(receiver: Data<Receive>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let headers: Headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let verdict = match receiver.secret() {
        Ok(None) => "signature not checked".to_owned(),
        Ok(Some(secret)) => match standard::verify(&secret, &headers, &body, Timestamp::now()) {
            Ok(()) => "signature ok".to_owned(),
            Err(refusal) => format!("SIGNATURE REFUSED: {refusal}"),
        },
        Err(error) => format!("signature not checked: {error}"),
    };
    let id = headers.get("webhook-id").unwrap_or("no webhook-id");
    say(format_args!(
        "{} {} {} {id} {verdict}\n{}",
        posthorn_core::time::Rfc3339(Timestamp::now()),
        request.method(),
        request.uri(),
        String::from_utf8_lossy(&body)
    ));
    let status = actix_web::http::StatusCode::from_u16(receiver.status).unwrap_or_default();
    HttpResponse::build(status).body("ok\n")
}
