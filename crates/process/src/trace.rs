//! Trace context as text (W3C Trace Context), for message headers and rows.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

/// The current span's `traceparent`; empty when nothing is traced.
pub fn traceparent(span: &Span) -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// The current span's `traceparent`, or a new trace's that nobody records: receivers always get one,
/// to join their logs by.
pub fn traceparent_or_new(span: &Span) -> String {
    let recorded = traceparent(span);
    if !recorded.is_empty() {
        return recorded;
    }
    let trace = uuid::Uuid::new_v4().simple();
    let parent = &uuid::Uuid::new_v4().simple().to_string()[..16];
    format!("00-{trace}-{parent}-00")
}

/// Makes `span` a child of the span that `traceparent` names, if it names one.
pub fn continue_from(span: &Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    // Fails only for a span that is not recorded, which has no parent to show.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&carrier));
}
