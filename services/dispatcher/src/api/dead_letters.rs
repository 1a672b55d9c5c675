//! `/v1/dead-letters`: what no longer moves.

use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::delivery::{DeadReason, State, Trigger};
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, ReplayId, SubscriptionId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::replay::{DeadLetterFilter, MOST_IDS, State as JobState, Work};
use posthorn_core::time::{Rfc3339, earlier};
use posthorn_store::dead_letters::{self, DeadLetter, Group, Narrowed};
use posthorn_store::replays::Replay;
use posthorn_store::{Error, deliveries};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::audit_log::Change;
use super::body::{Body, Checks, given};
use super::deliveries::{WholeView, set_going};
use super::idempotency::Once;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now, replays as jobs};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: DeadLetterId,
    reason: String,
    delivery_id: Option<DeliveryId>,
    subscription_id: Option<SubscriptionId>,
    event_id: Option<EventId>,
    tenant_id: Option<TenantId>,
    event_type: Option<String>,
    error: Option<String>,
    died_at: Rfc3339,
}

impl From<DeadLetter> for View {
    fn from(dead: DeadLetter) -> Self {
        Self {
            id: dead.id,
            reason: dead.reason,
            delivery_id: dead.delivery_id,
            subscription_id: dead.subscription_id,
            event_id: dead.event_id,
            tenant_id: dead.tenant_id,
            event_type: dead.event_type,
            error: dead.error,
            died_at: Rfc3339(dead.died_at),
        }
    }
}

/// What the query of a list narrows it to.
const NARROWING: [&str; 6] = ["tenant_id", "subscription_id", "event_type", "reason", "from", "to"];

fn filter(params: &Params) -> ApiResult<DeadLetterFilter> {
    let reason = params
        .text("reason")
        .map(|text| {
            DeadReason::parse(text).ok_or_else(|| ApiError::field("reason", "is not a known reason of a dead letter"))
        })
        .transpose()?;
    let event_types = params.event_types()?;
    Ok(DeadLetterFilter {
        tenant_id: params.tenant()?,
        subscription_id: params.parsed("subscription_id")?,
        event_type: (!event_types.is_empty()).then_some(event_types),
        reason,
        from: params.parsed("from")?.map(Rfc3339),
        to: params.parsed("to")?.map(Rfc3339),
        ids: None,
    })
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &[&NARROWING[..], &["limit", "cursor"]].concat())?;
    let page = params.page()?;
    let filter = filter(&params)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, filter.tenant_id).await?;
    let rows = dead_letters::list(&client, &Narrowed::new(tenant, &filter), page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |dead| *dead.id.as_uuid(), View::from)))
}

#[derive(Serialize)]
struct GroupView {
    subscription_id: Option<SubscriptionId>,
    tenant_id: Option<TenantId>,
    reason: String,
    error: Option<String>,
    count: i64,
    first_died_at: Rfc3339,
    last_died_at: Rfc3339,
}

impl From<Group> for GroupView {
    fn from(group: Group) -> Self {
        Self {
            subscription_id: group.subscription_id,
            tenant_id: group.tenant_id,
            reason: group.reason,
            error: group.error,
            count: group.count,
            first_died_at: Rfc3339(group.first_died_at),
            last_died_at: Rfc3339(group.last_died_at),
        }
    }
}

/// What died of the same at the same subscription, most frequent first. There is no second page.
pub async fn groups(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &[&NARROWING[..], &["limit"]].concat())?;
    let limit = params.page()?.limit;
    let filter = filter(&params)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, filter.tenant_id).await?;
    let groups = dead_letters::groups(&client, &Narrowed::new(tenant, &filter), limit).await?;
    let data: Vec<GroupView> = groups.into_iter().map(GroupView::from).collect();
    Ok(HttpResponse::Ok().json(List { data, next_cursor: None }))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeadLetterId = path_id("dead letter", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = dead_letters::find(&client, tenant, id).await?;
    Ok(HttpResponse::Ok().json(View::from(found.ok_or_else(|| ApiError::not_found("dead letter", id))?)))
}

/// Sets the delivery going again; with that the dead letter is settled.
pub async fn replay(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeadLetterId = path_id("dead letter", &id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let dead = dead_letters::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("dead letter", id))?;
    let delivery = dead.delivery_id.ok_or_else(|| match dead.event_id {
        Some(event) => {
            ApiError::conflict(format!("the dead letter is an event; replay it with POST /v1/events/{event}/replay"))
        }
        None => ApiError::conflict("the message names no delivery, so there is nothing to replay"),
    })?;
    let found = deliveries::find(&client, tenant, delivery).await?;
    let found = found.ok_or_else(|| ApiError::conflict("the delivery is older than the retention and was deleted"))?;
    let going = set_going(&client, found, &[State::Dead], Trigger::Replay).await?;
    Change::new("replay", "dead_letter", id, Some(going.tenant_id)).record(&client, caller, &request).await?;
    let view = WholeView::of(&client, going).await?;
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Accepted().json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayMany {
    filter: DeadLetterFilter,
    #[serde(default, deserialize_with = "given")]
    rate_per_second: Option<f64>,
    #[serde(default)]
    dry_run: bool,
}

/// Begins a job that sets going all that the filter means now.
pub async fn replay_many(api: Data<Api>, caller: Caller, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let ReplayMany { filter, rate_per_second, dry_run } = body.parse(Shape::DeadLetterReplay)?;
    let once = Once::of(caller, &request, &body.0)?;
    let rate_per_second = jobs::rate(&api, rate_per_second)?;
    let mut checks = Checks::default();
    let ids = filter.ids.as_ref().map_or(1, Vec::len);
    checks.require((1..=MOST_IDS).contains(&ids), "/filter/ids", "must be a list of 1 to 1000 ids");
    checks.finish()?;
    let mut client = api.store.client().await?;
    let tenant_id = caller.scope(&client, params.tenant()?.or(filter.tenant_id)).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    if let Some(answer) = once.answered(&transaction, &api.store).await? {
        return Ok(answer);
    }
    let narrowed = Narrowed::new(tenant_id, &filter);
    let (count, last) = dead_letters::count(&transaction, &narrowed).await?;
    let now = now();
    let job = Replay {
        id: ReplayId::new(now, rand::random()),
        tenant_id,
        state: if dry_run || count == 0 { JobState::Completed } else { JobState::Running },
        dry_run,
        counted: true,
        rate_per_second,
        count,
        done: 0,
        failed: 0,
        position: Uuid::nil(),
        // What dies from now on is not this job's business.
        through: last.map_or(Uuid::nil(), |last| Uuid::from_u128(last.as_uuid().as_u128().saturating_add(1))),
        bucket: Bucket { tokens: 0.0, at: None },
        due_at: now,
        created_at: now,
        updated_at: now,
        finished_at: (dry_run || count == 0).then_some(now),
        work: Work::DeadLetters(filter),
    };
    jobs::begin(&api, transaction, caller, &request, &once, job).await
}

/// Forgets one; its delivery stays dead.
pub async fn delete(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeadLetterId = path_id("dead letter", &id)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let found = dead_letters::find(&transaction, tenant, id).await?;
    let found = found.ok_or_else(|| ApiError::not_found("dead letter", id))?;
    dead_letters::delete(&transaction, tenant, id).await?;
    let change = Change::new("delete", "dead_letter", id, found.tenant_id).before(&View::from(found));
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Forgets those that died long ago.
pub async fn purge(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    const BATCH: i64 = 5000;
    const OLDEST: u64 = 400 * 86_400;
    caller.operator()?;
    let params = Params::of(&request, &["older_than_seconds", "tenant_id", "reason"])?;
    let age: Option<u64> = params.parsed("older_than_seconds")?;
    let age = age.filter(|age| *age <= OLDEST);
    let age = age.ok_or_else(|| {
        ApiError::field("older_than_seconds", format!("is required: a whole number from 0 to {OLDEST}"))
    })?;
    let before = earlier(now(), Duration::from_secs(age));
    let filter = DeadLetterFilter { to: Some(Rfc3339(before)), ..filter(&params)? };
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, filter.tenant_id).await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let narrowed = Narrowed::new(tenant, &filter);
    let mut purged = 0;
    loop {
        let some = dead_letters::purge(&transaction, &narrowed, BATCH).await?;
        purged += some;
        if some < BATCH.unsigned_abs() {
            break;
        }
    }
    let change = Change::new("purge", "dead_letter", "*", tenant);
    let told = serde_json::json!({ "before": Rfc3339(before), "reason": filter.reason, "purged": purged });
    change.after(&told).record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}
