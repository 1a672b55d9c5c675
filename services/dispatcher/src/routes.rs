//! Every operation of the dispatcher.

use std::collections::BTreeMap;

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig, delete, get, patch, post, put};
use actix_web::{Resource, Route};

use crate::api::{
    api_keys, audit_log, dead_letters, deliveries, event_types, events, rejected_requests, replays, sources, stats,
    subscriptions, tenants,
};
use crate::error::ApiError;

fn operations() -> Vec<(Method, &'static str, Route)> {
    const TENANT: &str = "/v1/tenants/{tenant_id}";
    const API_KEYS: &str = "/v1/tenants/{tenant_id}/api-keys";
    const SOURCE: &str = "/v1/sources/{source_id}";
    const EVENT_TYPE: &str = "/v1/event-types/{name}";
    const SUBSCRIPTION: &str = "/v1/subscriptions/{subscription_id}";
    const DELIVERY: &str = "/v1/deliveries/{delivery_id}";
    const DEAD_LETTER: &str = "/v1/dead-letters/{dead_letter_id}";
    vec![
        (Method::POST, "/v1/tenants", post().to(tenants::create)),
        (Method::GET, "/v1/tenants", get().to(tenants::list)),
        (Method::GET, TENANT, get().to(tenants::show)),
        (Method::PATCH, TENANT, patch().to(tenants::update)),
        (Method::DELETE, TENANT, delete().to(tenants::delete)),
        (Method::POST, API_KEYS, post().to(api_keys::create)),
        (Method::GET, API_KEYS, get().to(api_keys::list)),
        (Method::DELETE, "/v1/tenants/{tenant_id}/api-keys/{key_id}", delete().to(api_keys::delete)),
        (Method::POST, "/v1/sources", post().to(sources::create)),
        (Method::GET, "/v1/sources", get().to(sources::list)),
        (Method::GET, SOURCE, get().to(sources::show)),
        (Method::PATCH, SOURCE, patch().to(sources::update)),
        (Method::DELETE, SOURCE, delete().to(sources::delete)),
        (Method::POST, "/v1/sources/{source_id}/rotate-secret", post().to(sources::rotate)),
        (Method::POST, "/v1/sources/{source_id}/test", post().to(sources::test)),
        (Method::GET, "/v1/sources/{source_id}/stats", get().to(sources::stats)),
        (Method::GET, "/v1/sources/{source_id}/health", get().to(sources::health)),
        (Method::GET, "/v1/rejected-requests", get().to(rejected_requests::list)),
        (Method::POST, "/v1/rejected-requests/{rejected_request_id}/reverify", post().to(rejected_requests::reverify)),
        (Method::GET, "/v1/event-types", get().to(event_types::list)),
        (Method::PUT, EVENT_TYPE, put().to(event_types::put)),
        (Method::GET, EVENT_TYPE, get().to(event_types::show)),
        (Method::DELETE, EVENT_TYPE, delete().to(event_types::delete)),
        (Method::POST, "/v1/subscriptions", post().to(subscriptions::create)),
        (Method::GET, "/v1/subscriptions", get().to(subscriptions::list)),
        (Method::GET, SUBSCRIPTION, get().to(subscriptions::show)),
        (Method::PATCH, SUBSCRIPTION, patch().to(subscriptions::update)),
        (Method::DELETE, SUBSCRIPTION, delete().to(subscriptions::delete)),
        (Method::POST, "/v1/subscriptions/{subscription_id}/rotate-secret", post().to(subscriptions::rotate)),
        (Method::GET, "/v1/subscriptions/{subscription_id}/public-key", get().to(subscriptions::public_key)),
        (Method::POST, "/v1/subscriptions/{subscription_id}/test", post().to(subscriptions::test)),
        (Method::POST, "/v1/subscriptions/{subscription_id}/pause", post().to(subscriptions::pause)),
        (Method::POST, "/v1/subscriptions/{subscription_id}/resume", post().to(subscriptions::resume)),
        (Method::POST, "/v1/subscriptions/{subscription_id}/recover", post().to(subscriptions::recover)),
        (Method::GET, "/v1/subscriptions/{subscription_id}/stats", get().to(subscriptions::stats)),
        (Method::GET, "/v1/events", get().to(events::list)),
        (Method::GET, "/v1/events/{event_id}", get().to(events::show)),
        (Method::GET, "/v1/events/{event_id}/explain", get().to(events::explain)),
        (Method::POST, "/v1/events/{event_id}/replay", post().to(events::replay)),
        (Method::POST, "/v1/events/{event_id}/route", post().to(events::route)),
        (Method::GET, "/v1/deliveries", get().to(deliveries::list)),
        (Method::GET, DELIVERY, get().to(deliveries::show)),
        (Method::POST, "/v1/deliveries/{delivery_id}/retry", post().to(deliveries::retry)),
        (Method::POST, "/v1/deliveries/{delivery_id}/cancel", post().to(deliveries::cancel)),
        (Method::GET, "/v1/audit-log", get().to(audit_log::list)),
        (Method::GET, "/v1/stats", get().to(stats::overall)),
        (Method::GET, "/v1/dead-letters", get().to(dead_letters::list)),
        (Method::DELETE, "/v1/dead-letters", delete().to(dead_letters::purge)),
        (Method::GET, "/v1/dead-letters/groups", get().to(dead_letters::groups)),
        (Method::POST, "/v1/dead-letters/replay", post().to(dead_letters::replay_many)),
        (Method::GET, DEAD_LETTER, get().to(dead_letters::show)),
        (Method::DELETE, DEAD_LETTER, delete().to(dead_letters::delete)),
        (Method::POST, "/v1/dead-letters/{dead_letter_id}/replay", post().to(dead_letters::replay)),
        (Method::GET, "/v1/replays", get().to(replays::list)),
        (Method::GET, "/v1/replays/{replay_id}", get().to(replays::show)),
        (Method::POST, "/v1/replays/{replay_id}/cancel", post().to(replays::cancel)),
        (Method::POST, "/v1/replays/{replay_id}/resume", post().to(replays::resume)),
    ]
}

pub fn configure(config: &mut ServiceConfig) {
    let mut resources: BTreeMap<&str, (Vec<Method>, Resource)> = BTreeMap::new();
    for (method, path, route) in operations() {
        let (mut methods, resource) = resources.remove(path).unwrap_or_else(|| (Vec::new(), web::resource(path)));
        methods.push(method);
        resources.insert(path, (methods, resource.route(route)));
    }
    for (_, (methods, resource)) in resources {
        let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let refuse = move || {
            let allow = allow.clone();
            async move { Err::<&str, _>(ApiError::MethodNotAllowed { allow }) }
        };
        config.service(resource.default_service(web::to(refuse)));
    }
    config.default_service(web::to(async || Err::<&str, _>(ApiError::NoRoute)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_router_and_the_contract_name_the_same_operations() {
        let contract = include_str!("../../../proto/openapi.yaml");
        let contract: serde_json::Value = serde_yaml_ng::from_str(contract).unwrap();
        let described: BTreeSet<String> = contract["paths"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(path, _)| path.starts_with("/v1/"))
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let routed: BTreeSet<String> =
            operations().into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        assert_eq!(routed, described);
    }
}
