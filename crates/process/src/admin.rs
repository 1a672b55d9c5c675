//! The admin port: is the process alive, can it work, what does it count.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Something that the service needs. `Err` says what is wrong with it.
#[derive(Clone)]
pub struct Dependency {
    pub name: &'static str,
    pub check: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    /// Whether the service is of no use without it. The others are shown only.
    pub required: bool,
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependency").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A [`Dependency`] from a plain async function.
pub fn dependency<F, C>(name: &'static str, required: bool, check: C) -> Dependency
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Dependency { name, required, check: Arc::new(move || Box::pin(check())) }
}

/// Longest wait for one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`.
pub fn serve(listener: TcpListener, dependencies: Vec<Dependency>, stop: CancellationToken) -> std::io::Result<Server> {
    telemetry::metrics();
    let dependencies = web::Data::new(dependencies);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(dependencies.clone())
            .route("/livez", web::get().to(async || "ok\n"))
            .route("/readyz", web::get().to(ready))
            .route("/metrics", web::get().to(async || telemetry::metrics().render()))
    })
    .workers(1)
    .disable_signals()
    .shutdown_signal(stop.cancelled_owned())
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    Ok(server)
}

/// One line for each dependency.
async fn ready(dependencies: web::Data<Vec<Dependency>>) -> HttpResponse {
    let mut lines = String::new();
    let mut fit = true;
    for dependency in dependencies.iter() {
        let checked = tokio::time::timeout(CHECK_TIMEOUT, (dependency.check)()).await;
        let fault = match checked {
            Ok(Ok(())) => None,
            Ok(Err(fault)) => Some(fault),
            Err(_) => Some("no answer in time".to_owned()),
        };
        fit &= fault.is_none() || !dependency.required;
        let verdict = fault.map_or_else(|| "ok".to_owned(), |fault| format!("not ready: {fault}"));
        lines.push_str(&format!("{}: {verdict}\n", dependency.name));
    }
    let mut response = if fit { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.content_type("text/plain; charset=utf-8").body(lines)
}
