//! `/v1/event-types`: the catalogue of what there is to subscribe to.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::event_type::EventType;
use posthorn_core::schema::Schema;
use posthorn_core::time::Rfc3339;
use posthorn_store::Error;
use posthorn_store::event_types::{self, CatalogueEntry};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Builder;

use super::audit_log::Change;
use super::body::{Body, Checks};
use super::params::Params;
use super::{Api, Caller, List, now};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

/// Largest sample, in bytes of JSON.
const MAX_SAMPLE_BYTES: usize = 65_536;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    description: Option<String>,
    schema: Option<Value>,
    sample: Option<Value>,
    #[serde(default)]
    archived: bool,
}

#[derive(Serialize)]
struct View {
    name: String,
    description: Option<String>,
    schema: Option<Value>,
    sample: Option<Value>,
    archived: bool,
    created_at: Rfc3339,
    updated_at: Rfc3339,
}

impl From<CatalogueEntry> for View {
    fn from(entry: CatalogueEntry) -> Self {
        Self {
            name: entry.name.to_string(),
            description: entry.description,
            schema: entry.schema,
            sample: entry.sample,
            archived: entry.archived,
            created_at: Rfc3339(entry.created_at),
            updated_at: Rfc3339(entry.updated_at),
        }
    }
}

/// Creates an entry or replaces it whole.
pub async fn put(api: Data<Api>, caller: Caller, name: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let name = EventType::parse(&name).map_err(|error| ApiError::field("name", error.to_string()))?;
    let put: Put = body.parse(Shape::EventTypePut)?;
    check(&name, &put)?;
    let now = now();
    let entry = CatalogueEntry {
        // It begins with the time, as ids do, so that lists are newest first.
        id: Builder::from_unix_timestamp_millis(now.as_millisecond().unsigned_abs(), &rand::random()).into_uuid(),
        name,
        description: put.description,
        schema: put.schema,
        sample: put.sample,
        archived: put.archived,
        created_at: now,
        updated_at: now,
    };
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let before = event_types::find(&transaction, &entry.name).await?.map(View::from);
    let (entry, is_new) = event_types::put(&transaction, &entry).await?;
    let view = View::from(entry);
    let change = Change::new(if is_new { "create" } else { "update" }, "event_type", &view.name, None).after(&view);
    let change = match &before {
        Some(before) => change.before(before),
        None => change,
    };
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    let mut answer = if is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(view))
}

fn check(name: &EventType, put: &Put) -> ApiResult<()> {
    let mut checks = Checks::default();
    checks.require(
        !name.is_operational(),
        "name",
        "is reserved: event types that begin with `posthorn.` are Posthorn's own",
    );
    if let Some(text) = &put.description {
        let fits = text.chars().count() <= 2000 && !text.contains('\0');
        checks.require(fits, "/description", "must be a text of up to 2000 characters, without NUL");
    }
    if let Some(sample) = &put.sample {
        checks.require(sample.to_string().len() <= MAX_SAMPLE_BYTES, "/sample", "must have at most 65536 bytes");
    }
    if let Some(schema) = &put.schema {
        match (Schema::parse(schema), &put.sample) {
            (Err(error), _) => checks.fail("/schema", error.to_string()),
            (Ok(schema), Some(sample)) => {
                if let Err(violation) = schema.check_tree(sample) {
                    checks.fail(format!("/sample{}", violation.pointer), violation.detail);
                }
            }
            (Ok(_), None) => {}
        }
    }
    checks.finish()
}

/// Tenants see the catalogue as well: it is what they subscribe to.
pub async fn list(api: Data<Api>, _caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["archived", "limit", "cursor"])?;
    let page = params.page()?;
    let with_archived = match params.text("archived") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::field("archived", "must be `true` or `false`")),
    };
    let rows = event_types::list(&api.store.client().await?, with_archived, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |entry: &CatalogueEntry| entry.id, View::from)))
}

pub async fn show(api: Data<Api>, _caller: Caller, name: Path<String>, request: HttpRequest) -> ApiResult {
    Params::of(&request, &[])?;
    let entry = event_types::find(&api.store.client().await?, &known(&name)?).await?;
    Ok(HttpResponse::Ok().json(View::from(entry.ok_or_else(|| unknown(&name))?)))
}

pub async fn delete(api: Data<Api>, caller: Caller, name: Path<String>, request: HttpRequest) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let mut client = api.store.client().await?;
    let transaction = client.transaction().await.map_err(Error::from)?;
    let known = known(&name)?;
    let before = event_types::find(&transaction, &known).await?.ok_or_else(|| unknown(&name))?;
    event_types::delete(&transaction, &known).await?;
    let change = Change::new("delete", "event_type", &known, None).before(&View::from(before));
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::NoContent().finish())
}

/// What is no event type names nothing.
fn known(name: &str) -> ApiResult<EventType> {
    EventType::parse(name).map_err(|_| unknown(name))
}

fn unknown(name: &str) -> ApiError {
    ApiError::not_found("event type", name)
}
