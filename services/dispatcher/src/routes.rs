//! Every path of the dispatcher.

use actix_web::Resource;
use actix_web::web::{self, ServiceConfig, delete, get, patch, post};

use crate::api::{api_keys, dead_letters, deliveries, events, sources, subscriptions, tenants};
use crate::error::ApiError;

pub fn configure(config: &mut ServiceConfig) {
    let at = |path: &str, allow: &'static str| -> Resource {
        web::resource(path)
            .default_service(web::to(move || async move { Err::<&str, _>(ApiError::MethodNotAllowed { allow }) }))
    };
    config
        .service(at("/v1/tenants", "GET, POST").route(post().to(tenants::create)).route(get().to(tenants::list)))
        .service(
            at("/v1/tenants/{tenant_id}", "GET, PATCH, DELETE")
                .route(get().to(tenants::show))
                .route(patch().to(tenants::update))
                .route(delete().to(tenants::delete)),
        )
        .service(
            at("/v1/tenants/{tenant_id}/api-keys", "GET, POST")
                .route(post().to(api_keys::create))
                .route(get().to(api_keys::list)),
        )
        .service(at("/v1/tenants/{tenant_id}/api-keys/{key_id}", "DELETE").route(delete().to(api_keys::delete)))
        .service(at("/v1/sources", "GET, POST").route(post().to(sources::create)).route(get().to(sources::list)))
        .service(
            at("/v1/sources/{source_id}", "GET, PATCH, DELETE")
                .route(get().to(sources::show))
                .route(patch().to(sources::update))
                .route(delete().to(sources::delete)),
        )
        .service(
            at("/v1/subscriptions", "GET, POST")
                .route(post().to(subscriptions::create))
                .route(get().to(subscriptions::list)),
        )
        .service(
            at("/v1/subscriptions/{subscription_id}", "GET, PATCH, DELETE")
                .route(get().to(subscriptions::show))
                .route(patch().to(subscriptions::update))
                .route(delete().to(subscriptions::delete)),
        )
        .service(at("/v1/events", "GET").route(get().to(events::list)))
        .service(at("/v1/events/{event_id}", "GET").route(get().to(events::show)))
        .service(at("/v1/deliveries", "GET").route(get().to(deliveries::list)))
        .service(at("/v1/deliveries/{delivery_id}", "GET").route(get().to(deliveries::show)))
        .service(at("/v1/deliveries/{delivery_id}/retry", "POST").route(post().to(deliveries::retry)))
        .service(at("/v1/dead-letters", "GET").route(get().to(dead_letters::list)))
        .service(at("/v1/dead-letters/{dead_letter_id}", "GET").route(get().to(dead_letters::show)))
        .service(at("/v1/dead-letters/{dead_letter_id}/replay", "POST").route(post().to(dead_letters::replay)))
        .default_service(web::to(async || Err::<&str, _>(ApiError::NoRoute)));
}
