//! `GET /v1/sources/{id}/stats` and `/health`: what came, and whether all is well.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::SourceId;
use posthorn_core::signature::Verifier;
use posthorn_core::time::{Rfc3339, earlier, start_of_hour};
use posthorn_store::source_stats::{self, SourceStats};
use posthorn_store::sources;
use serde::Serialize;

use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now};
use crate::error::{ApiError, ApiResult};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Serialize)]
struct View {
    source_id: SourceId,
    window_seconds: u64,
    /// The window begins with a whole hour.
    from: Rfc3339,
    received: i64,
    duplicates: i64,
    schema_violations: i64,
    received_by_event_type: BTreeMap<String, i64>,
    rejected: Rejected,
    last_event_at: Option<Rfc3339>,
    success_rate: Option<f64>,
}

#[derive(Serialize)]
struct Rejected {
    total: i64,
    by_reason: BTreeMap<String, i64>,
    last_at: Option<Rfc3339>,
}

pub async fn stats(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "window_seconds"])?;
    let id: SourceId = path_id("source", &id)?;
    let window_seconds = params.window_seconds()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    sources::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    let since = earlier(now(), Duration::from_secs(window_seconds));
    let stats = source_stats::of_source(&client, id, since).await?;
    Ok(HttpResponse::Ok().json(View {
        source_id: id,
        window_seconds,
        from: Rfc3339(start_of_hour(since)),
        received: stats.received,
        duplicates: stats.duplicates,
        schema_violations: stats.schema_violations,
        success_rate: stats.success_rate(),
        rejected: Rejected {
            total: stats.refused(),
            last_at: stats.last_refused_at.map(Rfc3339),
            by_reason: stats.refused_by_reason,
        },
        received_by_event_type: stats.received_by_event_type,
        last_event_at: stats.last_received_at.map(Rfc3339),
    }))
}

/// How a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Events arrive.
    Healthy,
    /// Of what came within the hour, more than half was refused.
    Rejecting,
    /// Nothing came for a day.
    Silent,
    /// It can verify nothing, so everything is answered 503.
    Misconfigured,
}

#[derive(Serialize)]
struct HealthView {
    source_id: SourceId,
    status: Status,
    /// What is wrong, in words.
    detail: Option<String>,
    /// Whether there is something to verify with.
    secrets_set: bool,
    /// False for the algorithm `none`.
    verifies: bool,
    received_last_hour: i64,
    rejected_last_hour: i64,
    last_event_at: Option<Rfc3339>,
    last_rejected_at: Option<Rfc3339>,
    success_rate: Option<f64>,
}

pub async fn health(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let source = sources::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    let secrets = sources::secrets(&client, api.store.sealer(), &[id]).await?;
    let secrets = secrets.into_iter().map(|(_, secret)| secret.secret).collect();
    let verifier = Verifier::new(source.provider, &source.config, secrets).map_err(|fault| fault.to_string());
    let now = now();
    let day = source_stats::of_source(&client, id, earlier(now, DAY)).await?;
    let hour = source_stats::of_source(&client, id, earlier(now, HOUR)).await?;
    let (status, detail) = judge(verifier.as_ref().err(), &day, &hour);
    Ok(HttpResponse::Ok().json(HealthView {
        source_id: id,
        status,
        detail,
        secrets_set: verifier.as_ref().is_ok_and(Verifier::is_verifying),
        verifies: verifier.as_ref().map_or(true, Verifier::is_verifying),
        received_last_hour: hour.received + hour.duplicates,
        rejected_last_hour: hour.refused(),
        last_event_at: day.last_received_at.map(Rfc3339),
        last_rejected_at: day.last_refused_at.map(Rfc3339),
        success_rate: hour.success_rate(),
    }))
}

fn judge(fault: Option<&String>, day: &SourceStats, hour: &SourceStats) -> (Status, Option<String>) {
    if let Some(fault) = fault {
        return (Status::Misconfigured, Some(fault.clone()));
    }
    if hour.success_rate().is_some_and(|rate| rate < 0.5) {
        let most = hour.refused_by_reason.iter().max_by_key(|(_, count)| **count);
        let reason = most.map(|(reason, _)| reason.as_str()).unwrap_or_default();
        let detail = format!("{} requests were refused within the hour, mostly for `{reason}`", hour.refused());
        return (Status::Rejecting, Some(detail));
    }
    if day.success_rate().is_none() {
        return (Status::Silent, Some("nothing came for a day".to_owned()));
    }
    (Status::Healthy, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(received: i64, refused: i64) -> SourceStats {
        SourceStats {
            received,
            refused_by_reason: [("signature_mismatch".to_owned(), refused)].into(),
            ..SourceStats::default()
        }
    }

    #[test]
    fn a_source_is_told_by_what_came_and_what_was_refused() {
        let status = |fault: Option<&String>, day, hour| judge(fault, &day, &hour).0;
        assert_eq!(status(None, counts(9, 0), counts(1, 0)), Status::Healthy);
        assert_eq!(status(None, counts(9, 0), counts(0, 0)), Status::Healthy, "a quiet hour is none to worry about");
        assert_eq!(status(None, counts(9, 3), counts(1, 3)), Status::Rejecting);
        assert_eq!(status(None, counts(0, 0), counts(0, 0)), Status::Silent);
        assert_eq!(status(Some(&"no secret".to_owned()), counts(9, 0), counts(9, 0)), Status::Misconfigured);
    }
}
