//! `GET /v1/subscriptions/{id}/stats`: how a subscription does.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::SubscriptionId;
use posthorn_core::subscription::State;
use posthorn_core::time::{Rfc3339, earlier, since, start_of_hour};
use posthorn_store::delivery_stats::{self, Scope};
use posthorn_store::subscriptions;
use serde::Serialize;

use super::view::BreakerView;
use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    subscription_id: SubscriptionId,
    state: State,
    window_seconds: u64,
    /// The window begins with a whole hour.
    from: Rfc3339,
    delivered: i64,
    failed: i64,
    success_rate: Option<f64>,
    attempts: i64,
    failed_attempts: i64,
    average_response_time_ms: Option<f64>,
    p95_response_time_ms: Option<f64>,
    last_triggered_at: Option<Rfc3339>,
    breaker: BreakerView,
    backlog: Backlog,
}

/// What has not ended.
#[derive(Serialize)]
struct Backlog {
    deliveries: i64,
    oldest_age_seconds: Option<f64>,
}

pub async fn stats(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "window_seconds"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let window_seconds = params.window_seconds()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = subscriptions::find(&client, tenant, id).await?;
    let (subscription, runtime) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let now = now();
    let from = earlier(now, Duration::from_secs(window_seconds));
    let stats = delivery_stats::of(&client, Scope::Subscription(subscription.tenant_id, id), from).await?;
    let (deliveries, oldest) = delivery_stats::backlog(&client, id).await?;
    Ok(HttpResponse::Ok().json(View {
        subscription_id: id,
        state: subscription.state,
        window_seconds,
        from: Rfc3339(start_of_hour(from)),
        delivered: stats.delivered,
        failed: stats.failed,
        success_rate: stats.success_rate(),
        attempts: stats.attempts,
        failed_attempts: stats.failed_attempts,
        average_response_time_ms: stats.average_ms,
        p95_response_time_ms: stats.p95_ms,
        last_triggered_at: runtime.last_triggered_at.map(Rfc3339),
        breaker: BreakerView::from(runtime.breaker),
        backlog: Backlog { deliveries, oldest_age_seconds: oldest.map(|oldest| since(oldest, now).as_secs_f64()) },
    }))
}
