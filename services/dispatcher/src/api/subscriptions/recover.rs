//! `POST /v1/subscriptions/{id}/recover`: what a subscription did not get.

use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::web::{Data, Path};
use posthorn_core::id::{ReplayId, SubscriptionId, floor};
use posthorn_core::pace::Bucket;
use posthorn_core::replay::{Include, Recovery, State, Work};
use posthorn_core::time::Rfc3339;
use posthorn_store::replays::Replay;
use posthorn_store::{Error, health, subscriptions};
use serde::Deserialize;

use crate::api::body::{Body, Checks, given};
use crate::api::idempotency::Once;
use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now, replays as jobs};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

/// How long a request waits for the count; after that the job goes on counting.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recover {
    since: Rfc3339,
    #[serde(default, deserialize_with = "given")]
    until: Option<Rfc3339>,
    #[serde(default = "everything")]
    include: Vec<Include>,
    #[serde(default, deserialize_with = "given")]
    rate_per_second: Option<f64>,
    #[serde(default)]
    dry_run: bool,
}

fn everything() -> Vec<Include> {
    vec![Include::Failed, Include::Missing]
}

/// Begins a job that sets going what failed, and what was never dispatched: events that match, also from before
/// the subscription was there.
pub async fn recover(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let Recover { since, until, include, rate_per_second, dry_run } = body.parse(Shape::Recovery)?;
    let once = Once::of(caller, &request, &body.0)?;
    let rate_per_second = jobs::rate(&api, rate_per_second)?;
    let now = now();
    let until = until.unwrap_or(Rfc3339(now));
    let mut checks = Checks::default();
    checks.require(since.0 < until.0, "/since", "must be before `until`, and before now");
    checks.require((1..=2).contains(&include.len()), "/include", "must have `failed`, `missing` or both");
    checks.finish()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = subscriptions::find(&transaction, tenant, id).await?;
    let (subscription, _) = found.ok_or_else(|| ApiError::not_found("subscription", id))?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    let mut job = Replay {
        id: ReplayId::new(now, rand::random()),
        tenant_id: Some(subscription.tenant_id),
        work: Work::Recover(id, Recovery { since, until, include }),
        state: State::Counting,
        dry_run,
        counted: false,
        rate_per_second,
        count: 0,
        done: 0,
        failed: 0,
        position: floor(since.0),
        through: floor(until.0),
        bucket: Bucket { tokens: 0.0, at: None },
        due_at: now,
        created_at: now,
        updated_at: now,
        finished_at: None,
    };
    let began = Instant::now();
    while job.state == State::Counting && began.elapsed() < PATIENCE {
        api.replayer.advance(&transaction, &mut job, now).await?;
    }
    // Only now: whoever records attempts of the subscription waits for this.
    if !dry_run {
        health::recovering(&transaction, id, since.0).await?;
    }
    jobs::begin(&api, transaction, caller, &request, &once, job).await
}
