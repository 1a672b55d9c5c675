//! `GET /v1/stats`: what came in and what went out, over a time.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId};
use posthorn_core::replay::DeadLetterFilter;
use posthorn_core::time::{Rfc3339, earlier, start_of_hour};
use posthorn_store::dead_letters::{self, Narrowed};
use posthorn_store::delivery_stats::{self, Scope};
use posthorn_store::page::Page;
use posthorn_store::source_stats;
use serde::Serialize;

use super::params::Params;
use super::{Api, Caller, now};
use crate::error::ApiResult;

/// Failures that are shown.
const LAST_FAILURES: i64 = 10;

#[derive(Serialize)]
struct View {
    window_seconds: u64,
    /// The window begins with a whole hour.
    from: Rfc3339,
    received: Received,
    deliveries: Deliveries,
    success_rate: Option<f64>,
    last_failures: Vec<Failure>,
}

#[derive(Serialize)]
struct Received {
    total: i64,
    duplicates: i64,
    by_event_type: BTreeMap<String, i64>,
    by_source: BTreeMap<String, i64>,
}

#[derive(Serialize)]
struct Deliveries {
    delivered: i64,
    failed: i64,
    by_event_type: BTreeMap<String, Ends>,
    attempts: i64,
    failed_attempts: i64,
    average_response_time_ms: Option<f64>,
    p95_response_time_ms: Option<f64>,
}

#[derive(Serialize)]
struct Ends {
    delivered: i64,
    failed: i64,
}

#[derive(Serialize)]
struct Failure {
    delivery_id: Option<DeliveryId>,
    subscription_id: Option<SubscriptionId>,
    event_id: Option<EventId>,
    reason: String,
    error: Option<String>,
    died_at: Rfc3339,
}

pub async fn overall(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "window_seconds"])?;
    let window_seconds = params.window_seconds()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let from = earlier(now(), Duration::from_secs(window_seconds));
    let received = source_stats::received(&client, tenant, from).await?;
    let delivered = delivery_stats::of(&client, tenant.map_or(Scope::All, Scope::Tenant), from).await?;
    let filter = DeadLetterFilter::default();
    let page = Page { before: None, limit: LAST_FAILURES };
    let mut failures = dead_letters::list(&client, &Narrowed::new(tenant, &filter), page).await?;
    failures.truncate(LAST_FAILURES as usize);
    Ok(HttpResponse::Ok().json(View {
        window_seconds,
        from: Rfc3339(start_of_hour(from)),
        received: Received {
            total: received.total,
            duplicates: received.duplicates,
            by_event_type: received.by_event_type,
            by_source: received.by_source.into_iter().map(|(id, count)| (id.to_string(), count)).collect(),
        },
        success_rate: delivered.success_rate(),
        deliveries: Deliveries {
            delivered: delivered.delivered,
            failed: delivered.failed,
            by_event_type: delivered
                .by_event_type
                .into_iter()
                .map(|(name, ends)| (name, Ends { delivered: ends.delivered, failed: ends.failed }))
                .collect(),
            attempts: delivered.attempts,
            failed_attempts: delivered.failed_attempts,
            average_response_time_ms: delivered.average_ms,
            p95_response_time_ms: delivered.p95_ms,
        },
        last_failures: failures
            .into_iter()
            .map(|dead| Failure {
                delivery_id: dead.delivery_id,
                subscription_id: dead.subscription_id,
                event_id: dead.event_id,
                reason: dead.reason,
                error: dead.error,
                died_at: Rfc3339(dead.died_at),
            })
            .collect(),
    }))
}
