//! `/v1/replays`: jobs that set dead and missing deliveries going again.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::{ReplayId, SubscriptionId, TenantId};
use posthorn_core::replay::{State, Work};
use posthorn_core::time::Rfc3339;
use posthorn_store::replays::{self, Replay};
use posthorn_store::{Error, Transaction};
use serde::Serialize;
use serde_json::Value;

use super::audit_log::Change;
use super::body::Body;
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
pub struct View {
    id: ReplayId,
    kind: &'static str,
    tenant_id: Option<TenantId>,
    subscription_id: Option<SubscriptionId>,
    state: State,
    count: i64,
    done: i64,
    failed: i64,
    dry_run: bool,
    rate_per_second: f64,
    filter: Value,
    created_at: Rfc3339,
    updated_at: Rfc3339,
    finished_at: Option<Rfc3339>,
}

impl From<Replay> for View {
    fn from(replay: Replay) -> Self {
        let (kind, subscription_id, filter) = match &replay.work {
            Work::DeadLetters(filter) => ("dead_letters", filter.subscription_id, serde_json::to_value(filter)),
            Work::Recover(subscription, recovery) => ("recover", Some(*subscription), serde_json::to_value(recovery)),
        };
        Self {
            id: replay.id,
            kind,
            tenant_id: replay.tenant_id,
            subscription_id,
            state: replay.state,
            count: replay.count,
            done: replay.done,
            failed: replay.failed,
            dry_run: replay.dry_run,
            rate_per_second: replay.rate_per_second,
            // Structs of texts and lists: there is nothing that cannot be written.
            filter: filter.unwrap_or_default(),
            created_at: Rfc3339(replay.created_at),
            updated_at: Rfc3339(replay.updated_at),
            finished_at: replay.finished_at.map(Rfc3339),
        }
    }
}

/// The rate of a new job: what is asked for, or the deployment's.
pub fn rate(api: &Api, asked: Option<f64>) -> ApiResult<f64> {
    const RATES: std::ops::RangeInclusive<f64> = 0.1..=10_000.0;
    match asked {
        None => Ok(api.replayer.settings.rate_per_second),
        Some(rate) if RATES.contains(&rate) => Ok(rate),
        Some(_) => Err(ApiError::field("/rate_per_second", "must be a number from 0.1 to 10000")),
    }
}

/// Writes down a new job, and answers with it.
pub async fn begin(
    api: &Api,
    transaction: Transaction<'_>,
    caller: Caller,
    request: &HttpRequest,
    once: &Once,
    job: Replay,
) -> ApiResult {
    replays::insert(&transaction, &job).await?;
    let view = View::from(job);
    let change = Change::new("create", "replay", view.id, view.tenant_id).after(&view);
    change.record(&transaction, caller, request).await?;
    once.accepted(transaction, &api.store, &view).await
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "limit", "cursor"])?;
    let page = params.page()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let rows = replays::list(&client, tenant, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |replay| *replay.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: ReplayId = path_id("replay", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = replays::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("replay", id))?;
    Ok(HttpResponse::Ok().json(View::from(found)))
}

/// Ends a job where it is. What it set going goes on.
pub async fn cancel(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    turn(&api, caller, &id, &request, &body, "cancel", |job| {
        if !job.state.is_under_way() {
            return Err(ApiError::conflict(format!("a job that is {} cannot be cancelled", job.state.as_str())));
        }
        job.state = State::Cancelled;
        job.finished_at = Some(now());
        Ok(())
    })
    .await
}

/// Goes on with a job that was cancelled, from where it was.
pub async fn resume(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    turn(&api, caller, &id, &request, &body, "resume", |job| {
        if job.state != State::Cancelled {
            return Err(ApiError::conflict(format!("a job that is {} cannot be resumed", job.state.as_str())));
        }
        job.state = if job.counted { State::Running } else { State::Counting };
        job.finished_at = None;
        job.due_at = now();
        Ok(())
    })
    .await
}

async fn turn(
    api: &Api,
    caller: Caller,
    id: &str,
    request: &HttpRequest,
    body: &Body,
    action: &'static str,
    change: impl FnOnce(&mut Replay) -> ApiResult<()>,
) -> ApiResult {
    let params = Params::of(request, &["tenant_id"])?;
    let id: ReplayId = path_id("replay", id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction: Transaction<'_> = client.transaction().await.map_err(Error::from)?;
    let found = replays::lock(&transaction, tenant, id).await?;
    let mut job = found.ok_or_else(|| ApiError::not_found("replay", id))?;
    let before = View::from(job.clone());
    change(&mut job)?;
    job.updated_at = now();
    replays::update(&transaction, &job).await?;
    let view = View::from(job);
    let change = Change::new(action, "replay", id, view.tenant_id).before(&before).after(&view);
    change.record(&transaction, caller, request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(view))
}
