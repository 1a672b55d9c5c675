//! Logs, traces and metrics.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// What is told, and in which form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `json`: one object a line; `human`: for a terminal.
    pub format: Format,
    /// Directives of tracing-subscriber, such as `info,lapin=warn`.
    pub filter: String,
    /// A directory for warnings and errors as JSON lines, a file a day (UTC), `YYYY-MM-DD.log`; empty writes none.
    pub errors_directory: String,
    /// Files of errors that are kept.
    pub errors_files: usize,
    /// Where traces go, such as `http://collector:4318/v1/traces`; empty sends none.
    pub otlp_endpoint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Json,
    Human,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("log.otlp_endpoint: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("log.otlp_endpoint needs an http or https URL, and a runtime")]
    Endpoint,
}

/// Sends and writes what is still to be sent and written when dropped.
#[derive(Debug)]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
    _errors: Option<WorkerGuard>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.traces {
            // At the very end nobody is left to tell that a trace was lost.
            let _ = provider.shutdown();
        }
    }
}

/// Starts logging, and tracing where an endpoint is set. Once in a process.
pub fn start(service: &'static str, settings: &Settings) -> Result<Guard, Error> {
    let filter = EnvFilter::try_new(&settings.filter)?;
    let lines = match settings.format {
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        Format::Human => tracing_subscriber::fmt::layer().boxed(),
    };
    let (errors, no_errors) = match errors_file(settings).transpose() {
        Ok(writer) => (writer, None),
        Err(fault) => (None, Some(fault)),
    };
    let (errors, writing) = errors.unzip();
    let errors = errors.map(|writer| {
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true);
        lines.with_span_list(false).with_writer(writer).with_filter(filter_fn(is_error_or_span))
    });
    let provider = tracer_provider(service, settings)?;
    let traces = provider.as_ref().map(|p| tracing_opentelemetry::layer().with_tracer(p.tracer(service)));
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    // Fails if logging was started before, which is as good.
    let _ = tracing_subscriber::registry().with(traces).with(lines).with(errors).with(filter).try_init();
    if let Some(fault) = no_errors {
        // What is in the file is in the log as well: no reason not to start.
        let fault = &fault as &dyn std::error::Error;
        tracing::warn!(error = fault, "no file of errors in `{}`", settings.errors_directory);
    }
    Ok(Guard { traces: provider, _errors: writing })
}

/// Spans come along: they carry the ids.
fn is_error_or_span(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.is_span() || *metadata.level() <= tracing::Level::WARN
}

/// An error and all that caused it, in one line, for where only the outermost would be told.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Lines that wait to be written to the file of errors; beyond it they are left out there.
const ERRORS_WAITING: usize = 8192;

fn errors_file(settings: &Settings) -> Option<Result<(NonBlocking, WorkerGuard), InitError>> {
    if settings.errors_directory.is_empty() {
        return None;
    }
    // The appender looks through the directory before it makes it, and writes of that to the standard error output as
    // plain text. Where this fails, the appender says why.
    let _ = std::fs::create_dir_all(&settings.errors_directory);
    let file = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_suffix("log")
        .max_log_files(settings.errors_files)
        .build(&settings.errors_directory);
    let waiting = NonBlockingBuilder::default().buffered_lines_limit(ERRORS_WAITING).lossy(true);
    Some(file.map(|file| waiting.finish(file)))
}

fn tracer_provider(service: &'static str, settings: &Settings) -> Result<Option<SdkTracerProvider>, Error> {
    if settings.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    if !settings.otlp_endpoint.starts_with("http") {
        return Err(Error::Endpoint);
    }
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(&settings.otlp_endpoint).build()?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}

/// Seconds, from a cache hit to the longest timeout of a subscription.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The process's metrics, recorded from the first call on.
pub fn metrics() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let recorder = match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS) {
            Ok(builder) => builder.build_recorder(),
            // Only an empty list of buckets is refused.
            Err(_) => PrometheusBuilder::new().build_recorder(),
        };
        let handle = recorder.handle();
        // Fails if a recorder is there already, which then records.
        let _ = metrics::set_global_recorder(recorder);
        metrics::gauge!("posthorn_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    })
}

/// Keeps the metrics' memory bounded. Runs for ever.
pub async fn upkeep() {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        metrics().run_upkeep();
    }
}
