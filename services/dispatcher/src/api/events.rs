//! `/v1/events`: what came in.

use std::collections::HashMap;
use std::sync::Arc;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::delivery::{HeldReason, State, Trigger};
use posthorn_core::envelope::Data as Payload;
use posthorn_core::id::{DeliveryId, EventId, SourceId, SubscriptionId, TenantId};
use posthorn_core::request::Headers;
use posthorn_core::routing::Route;
use posthorn_core::subscription::{Audience, EventFacts};
use posthorn_core::time::Rfc3339;
use posthorn_store::deliveries::{self, Delivery, NewDelivery};
use posthorn_store::events::{self, Assigned, Event, Filter, SourceName, WholeEvent};
use posthorn_store::page::Page;
use posthorn_store::snapshot::Entry;
use posthorn_store::{Error, GenericClient, sources, subscriptions, tenants};
use serde::{Deserialize, Serialize};

use super::audit_log::Change;
use super::body::{Body, given};
use super::deliveries::View as DeliveryView;
use super::params::{Params, path_id};
use super::subscriptions::is_source_name;
use super::{Api, Caller, List, now};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: EventId,
    tenant_id: Option<TenantId>,
    source_id: SourceId,
    event_type: String,
    routed: String,
    occurred_at: Option<Rfc3339>,
    received_at: Rfc3339,
    duplicates: i32,
    schema_violation: Option<String>,
}

#[derive(Serialize)]
struct WholeView<'a> {
    #[serde(flatten)]
    event: View,
    headers: serde_json::Value,
    payload: Payload<'a>,
    payload_encoding: &'static str,
}

impl From<Event> for View {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            tenant_id: event.tenant_id,
            source_id: event.source_id,
            event_type: event.event_type.to_string(),
            routed: event.audience,
            occurred_at: event.occurred_at.map(Rfc3339),
            received_at: Rfc3339(event.received_at),
            duplicates: event.duplicates,
            schema_violation: event.schema_violation,
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let known = ["tenant_id", "event_type", "source", "routed", "from", "to", "limit", "cursor"];
    let params = Params::of(&request, &known)?;
    let page = params.page()?;
    let source = match params.text("source") {
        Some(source) if !is_source_name(source) => {
            return Err(ApiError::field("source", "must be a source's slug or id"));
        }
        source => source.map(|text| text.parse().map_or_else(|_| SourceName::Slug(text.to_owned()), SourceName::Id)),
    };
    let unrouted = match params.text("routed") {
        None => false,
        Some("unrouted") => true,
        Some(_) => return Err(ApiError::field("routed", "must be `unrouted`, for events whose tenant is unknown")),
    };
    let client = api.store.client().await?;
    let filter = Filter {
        span: params.span()?,
        event_types: params.event_types()?,
        source,
        unrouted,
        tenant_id: caller.scope(&client, params.tenant()?).await?,
    };
    let rows = events::list(&client, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |event| *event.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: EventId = path_id("event", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = events::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    Ok(HttpResponse::Ok().json(WholeView::of(&found)))
}

impl<'a> WholeView<'a> {
    fn of(found: &'a WholeEvent) -> Self {
        let payload = Payload::read(&found.content_type, &found.body);
        let payload_encoding = match &payload {
            Payload::Json(_) => "json",
            Payload::Form(_) => "form",
            Payload::Text(_) => "text",
            Payload::Binary(_) => "base64",
        };
        Self { event: View::from(found.event.clone()), headers: found.headers.clone(), payload, payload_encoding }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    #[serde(default, deserialize_with = "given")]
    tenant_id: Option<TenantId>,
}

/// Gives an unrouted event to a tenant: the one named, or whom the source's routing finds by now.
pub async fn route(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let id: EventId = path_id("event", &id)?;
    let Destination { tenant_id } = body.parse_optional(Shape::EventRoute)?;
    let mut client = api.store.client().await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let found = events::find(&client, None, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    let tenant = match tenant_id {
        Some(tenant) => tenants::find(&client, tenant).await?.map(|tenant| tenant.id),
        None => routed_by_now(&client, &found).await?,
    };
    let tenant = match (tenant, tenant_id) {
        (Some(tenant), _) => tenant,
        (None, Some(named)) => return Err(ApiError::not_found("tenant", named)),
        (None, None) => {
            return Err(ApiError::conflict(
                "the routing of the event's source finds no tenant for it; name one as `tenant_id`",
            ));
        }
    };
    match events::assign(&client, id, tenant).await? {
        Assigned::Done => {}
        Assigned::AlreadyRouted => return Err(ApiError::conflict("the event has a tenant already")),
        Assigned::StillInOutbox => {
            return Err(ApiError::conflict("the event is still being dispatched; try again in a moment"));
        }
    }
    Change::new("route", "event", id, Some(tenant)).record(&client, caller, &request).await?;
    let found = events::find(&client, None, id).await?.unwrap_or(found);
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Accepted().json(WholeView::of(&found)))
}

/// Whom the source's routing names for an event that is kept already.
async fn routed_by_now(db: &impl GenericClient, found: &WholeEvent) -> ApiResult<Option<TenantId>> {
    let Some(source) = sources::find(db, None, found.event.source_id).await? else { return Ok(None) };
    let headers = found.headers.as_object().into_iter().flatten();
    let headers: Headers = headers.filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
    Ok(match source.routing.route(&headers, &found.body) {
        Route::Tenant(tenant) => tenants::find(db, tenant).await?.map(|tenant| tenant.id),
        Route::External(external_id) => {
            let page = Page { before: None, limit: 1 };
            tenants::list(db, Some(&external_id), page).await?.first().map(|tenant| tenant.id)
        }
        Route::Broadcast | Route::Unrouted => None,
    })
}

/// Why a subscription got an event, or did not.
#[derive(Serialize)]
struct Explained {
    subscription_id: SubscriptionId,
    tenant_id: TenantId,
    matched: bool,
    /// The clause that said no; of one that matches, why there is no delivery.
    reason: Option<&'static str>,
    delivery_id: Option<DeliveryId>,
    state: Option<State>,
    held_reason: Option<HeldReason>,
    due_at: Option<Rfc3339>,
}

pub async fn explain(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "limit", "cursor"])?;
    let page = params.page()?;
    let id: EventId = path_id("event", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = events::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    let facts = Facts::of(&found.event, &found.source_slug);
    // Of another tenant, that it is another's is all there is to say; nobody asks that of thousands.
    let tenant = tenant.or(found.event.tenant_id);
    let mut asked = tenant.map_or_else(|| api.subscriptions.all(), |tenant| api.subscriptions.of_tenant(tenant));
    asked.retain(|subscription| page.before.is_none_or(|before| *subscription.id.as_uuid() < before));
    asked.reverse();
    asked.truncate(usize::try_from(page.limit + 1).unwrap_or(usize::MAX));
    let ids: Vec<SubscriptionId> = asked.iter().map(|subscription| subscription.id).collect();
    let mut made: HashMap<SubscriptionId, Delivery> =
        deliveries::of_event(&client, id, &ids).await?.into_iter().map(|made| (made.subscription_id, made)).collect();
    let rows: Vec<Explained> = asked
        .iter()
        .map(|subscription| {
            let wants = subscription.wants(&facts.event());
            let delivery = made.remove(&subscription.id);
            let reason = match (&wants, &delivery) {
                (Err(clause), _) => Some(clause.as_str()),
                // It was made, or made to match, after the event was dispatched.
                (Ok(()), None) => Some("not_dispatched"),
                (Ok(()), Some(_)) => None,
            };
            Explained {
                subscription_id: subscription.id,
                tenant_id: subscription.tenant_id,
                matched: wants.is_ok(),
                reason,
                delivery_id: delivery.as_ref().map(|delivery| delivery.id),
                state: delivery.as_ref().map(|delivery| delivery.state),
                held_reason: delivery.as_ref().and_then(|delivery| delivery.held_reason),
                due_at: delivery.and_then(|delivery| delivery.due_at).map(Rfc3339),
            }
        })
        .collect();
    let list = List::of(rows, page.limit, |row| *row.subscription_id.as_uuid(), |row| row);
    Ok(HttpResponse::Ok().json(list))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    #[serde(default, deserialize_with = "given")]
    subscription_id: Option<SubscriptionId>,
}

#[derive(Serialize)]
struct Replayed {
    /// How many deliveries began; those that are on their way are left alone.
    replayed: usize,
    /// The first 200 of them.
    data: Vec<DeliveryView>,
}

/// Sends an event again, to one subscription or to all that match now; also to those that did not get it
/// the first time. Receivers see the same `webhook-id`.
pub async fn replay(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    const SHOWN: usize = 200;
    let params = Params::of(&request, &["tenant_id"])?;
    let id: EventId = path_id("event", &id)?;
    let Replay { subscription_id } = body.parse_optional(Shape::EventReplay)?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let found = events::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    let facts = Facts::of(&found.event, &found.source_slug);
    let asked = match subscription_id {
        None => {
            let tenant = tenant.or(found.event.tenant_id);
            tenant.map_or_else(|| api.subscriptions.all(), |tenant| api.subscriptions.of_tenant(tenant))
        }
        Some(wanted) => {
            let known = subscriptions::find(&client, tenant, wanted).await?;
            known
                .ok_or_else(|| ApiError::field("/subscription_id", "is not the id of a subscription that there is"))?;
            api.subscriptions.fetch(&client, api.store.sealer(), wanted).await?.into_iter().collect()
        }
    };
    let wanting = |subscription: &Arc<Entry>| subscription.wants(&facts.event());
    if let (Some(_), Some(Err(clause))) = (subscription_id, asked.first().map(wanting)) {
        let detail = format!("the subscription does not want this event: {}", clause.as_str());
        return Err(ApiError::conflict(detail));
    }
    let now = now();
    let new: Vec<NewDelivery> = asked
        .iter()
        .filter(|subscription| wanting(subscription).is_ok())
        .map(|subscription| NewDelivery {
            id: DeliveryId::derive(id, subscription.id),
            event_id: id,
            subscription_id: subscription.id,
            tenant_id: subscription.tenant_id,
            event_type: found.event.event_type.to_string(),
            held: Some(HeldReason::Replay),
            due_at: now,
        })
        .collect();
    let begun = deliveries::replay(&client, &new, true, Trigger::Replay, now).await?;
    let change = Change::new("replay", "event", id, tenant.or(found.event.tenant_id));
    change.after(&serde_json::json!({ "replayed": begun.len() })).record(&client, caller, &request).await?;
    let shown: Vec<SubscriptionId> =
        new.iter().filter(|new| begun.contains(&new.id)).take(SHOWN).map(|new| new.subscription_id).collect();
    let data = deliveries::of_event(&client, id, &shown).await?.into_iter().map(DeliveryView::from).collect();
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Accepted().json(Replayed { replayed: begun.len(), data }))
}

/// What dispatch knows of an event.
struct Facts<'a> {
    event: &'a Event,
    source_slug: &'a str,
    audience: Audience,
}

impl<'a> Facts<'a> {
    fn of(event: &'a Event, source_slug: &'a str) -> Self {
        let audience = match (event.audience.as_str(), event.tenant_id) {
            ("broadcast", _) => Audience::Everyone,
            ("tenant", Some(tenant)) => Audience::Tenant(tenant),
            _ => Audience::Nobody,
        };
        Self { event, source_slug, audience }
    }

    fn event(&self) -> EventFacts<'_> {
        EventFacts {
            event_type: &self.event.event_type,
            source_id: self.event.source_id,
            source_slug: self.source_slug,
            audience: self.audience,
        }
    }
}
