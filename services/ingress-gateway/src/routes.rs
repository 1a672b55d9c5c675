//! Every path of the gateway.

use actix_web::web::{self, ServiceConfig};

use crate::receive::{receive, unmatched};

pub fn configure(config: &mut ServiceConfig) {
    let resource = |path: &str| {
        web::resource(path)
            // Whatever the method: each request is told and counted, and the source says which it takes.
            .route(web::route().to(receive))
    };
    config
        .service(resource("/webhooks/{source}"))
        .service(resource("/webhooks/{source}/{event}"))
        .default_service(web::to(unmatched));
}
