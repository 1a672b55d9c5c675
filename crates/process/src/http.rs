//! How a service listens.

use std::net::TcpListener;
use std::num::{NonZeroU32, NonZeroUsize};

use actix_web::HttpMessage as _;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use serde::Deserialize;
use tracing::Span;
use tracing_actix_web::{RequestId, RootSpanBuilder};

/// Where a service listens, and how much it takes at once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub host: String,
    /// 0 takes any free port.
    pub port: u16,
    pub admin_port: u16,
    /// Threads that serve requests.
    pub workers: NonZeroUsize,
    /// Connections open at the same time, for each thread.
    pub max_connections: NonZeroUsize,
    /// Longest wait for a request's head, in milliseconds.
    pub head_timeout_ms: NonZeroU32,
    /// Longest wait for the next request on an open connection, in seconds.
    pub keep_alive_seconds: u16,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}")]
pub struct BindError {
    host: String,
    port: u16,
    #[source]
    source: std::io::Error,
}

/// Binds before any work is taken, so that a port in use is told at the start.
pub fn bind(host: &str, port: u16) -> Result<TcpListener, BindError> {
    TcpListener::bind((host, port)).map_err(|source| BindError { host: host.to_owned(), port, source })
}

/// The span of one request: its id, method and route, never its query or headers.
#[derive(Debug)]
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = request.extensions().get::<RequestId>().map(|id| format!("req_{}", id.simple())).unwrap_or_default();
        let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
        tracing::info_span!(
            "request",
            request.id = %id,
            http.method = %request.method(),
            http.route = %route,
            tenant.id = tracing::field::Empty,
            secret.id = tracing::field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(_: Span, _: &Result<ServiceResponse<B>, actix_web::Error>) {}
}

/// [`RequestSpan`], and a line for each request at its end.
#[derive(Debug)]
pub struct LoggedRequestSpan;

impl RootSpanBuilder for LoggedRequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        RequestSpan::on_request_start(request)
    }

    fn on_request_end<B: MessageBody>(span: Span, answer: &Result<ServiceResponse<B>, actix_web::Error>) {
        let status = match answer {
            Ok(answer) => answer.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        let _entered = span.enter();
        tracing::info!(http.status = status.as_u16(), "answered {}", status.as_u16());
    }
}
