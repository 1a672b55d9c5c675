//! What Posthorn counts as it goes, against its rows.

use serde_json::Value;
use tokio_postgres::Client;

use crate::api::Api;
use crate::error::Result;
use crate::ledger::Check;
use crate::ledger::books::Books;

/// Counted at three levels: for each, for its tenant, for all; the largest UUID stands for all.
const ALL: &str = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid";
const NOBODY: &str = "'00000000-0000-0000-0000-000000000000'::uuid";

pub async fn checks(books: &Books, database: &Client, api: &Api) -> Result<Vec<Check>> {
    let totals = "
        SELECT subscription_id::text, counted, rows FROM
            (SELECT subscription_id, ROW(delivered, failed)::text AS counted FROM subscription_runtime) r
        JOIN (SELECT s.id AS subscription_id, ROW(count(d.id) FILTER (WHERE d.state = 'delivered'),
                     count(d.id) FILTER (WHERE d.state = 'dead'))::text AS rows
              FROM subscriptions s LEFT JOIN deliveries d ON d.subscription_id = s.id GROUP BY s.id) d USING (subscription_id)
        WHERE counted <> rows";
    let deliveries = compare(
        &format!(
            "SELECT concat_ws(' ', coalesce(tenant_id, {ALL}), coalesce(subscription_id, {ALL}), event_type) AS what,
                    ROW(count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'dead'))::text AS n
             FROM deliveries WHERE state IN ('delivered', 'dead')
             GROUP BY GROUPING SETS ((tenant_id, subscription_id, event_type), (tenant_id, event_type), (event_type))"
        ),
        "SELECT concat_ws(' ', tenant_id, subscription_id, event_type) AS what, ROW(sum(delivered)::bigint, sum(failed)::bigint)::text AS n
         FROM delivery_stats WHERE shard <> -1 GROUP BY tenant_id, subscription_id, event_type
         HAVING sum(delivered) + sum(failed) > 0",
    );
    let attempts = compare(
        &format!(
            "SELECT concat_ws(' ', coalesce(tenant_id, {ALL}), coalesce(subscription_id, {ALL})) AS what,
                    ROW(count(*), count(*) FILTER (WHERE error IS NOT NULL))::text AS n
             FROM attempts GROUP BY GROUPING SETS ((tenant_id, subscription_id), (tenant_id), ())"
        ),
        "SELECT concat_ws(' ', tenant_id, subscription_id) AS what, ROW(sum(attempts)::bigint, sum(failed)::bigint)::text AS n
         FROM attempt_stats WHERE shard <> -1 GROUP BY tenant_id, subscription_id",
    );
    let events = compare(
        &format!(
            "SELECT concat_ws(' ', tenant, source_id, event_type) AS what, ROW(count(*), sum(duplicates)::bigint)::text AS n
             FROM events CROSS JOIN LATERAL (VALUES (coalesce(tenant_id, {NOBODY})), ({ALL})) AS t(tenant)
             GROUP BY tenant, source_id, event_type"
        ),
        "SELECT concat_ws(' ', tenant_id, source_id, event_type) AS what, ROW(sum(received)::bigint, sum(duplicates)::bigint)::text AS n
         FROM event_stats WHERE shard <> -1 GROUP BY tenant_id, source_id, event_type",
    );
    let made = "SELECT d.id::text, d.attempts_made::text, count(a.id)::text
        FROM deliveries d LEFT JOIN attempts a ON a.delivery_id = d.id
        GROUP BY d.id, d.attempts_made HAVING d.attempts_made <> count(a.id)";
    Ok(vec![
        none(database, "every subscription's totals are the numbers of its rows", totals).await?,
        none(database, "deliveries counted by the hour, at every level, are the rows", &deliveries).await?,
        none(database, "attempts counted by the hour, at every level, are the rows", &attempts).await?,
        none(database, "events and duplicates counted by the hour, at every level, are the rows", &events).await?,
        none(database, "every delivery says how many attempts it has", made).await?,
        api_totals(books, api).await?,
    ])
}

/// Where two counts of the same things differ: what, counted, rows.
fn compare(rows: &str, counted: &str) -> String {
    format!("SELECT what, c.n, r.n FROM ({counted}) c FULL JOIN ({rows}) r USING (what) WHERE c.n IS DISTINCT FROM r.n")
}

async fn none(database: &Client, sentence: &'static str, differences: &str) -> Result<Check> {
    let mut check = Check::new(sentence);
    for row in database.query(differences, &[]).await? {
        let (what, counted, rows): (String, Option<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let shown = |count: Option<String>| count.unwrap_or_else(|| "nothing".to_owned());
        check.except(|| format!("{what}: {} counted, {} in rows", shown(counted), shown(rows)));
    }
    Ok(check)
}

async fn api_totals(books: &Books, api: &Api) -> Result<Check> {
    let mut check = Check::new("the API's statistics are what the ledgers say");
    let stats = api.get("/v1/stats?window_seconds=86400").await?;
    let ended = |state: &str| books.deliveries.values().filter(|delivery| delivery.state == state).count();
    let mut same = |what: &str, said: &Value, is: usize| {
        if said.as_u64() != u64::try_from(is).ok() {
            check.except(|| format!("{what}: {said} by the API, {is} by the ledger"));
        }
    };
    same("events", &stats["received"]["total"], books.events.len());
    same("delivered", &stats["deliveries"]["delivered"], ended("delivered"));
    same("failed", &stats["deliveries"]["failed"], ended("dead"));
    same("attempts", &stats["deliveries"]["attempts"], books.attempts.values().map(Vec::len).sum());
    Ok(check)
}
