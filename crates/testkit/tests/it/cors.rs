//! Web pages in a browser: let in where the deployment names them, and told nothing otherwise.

use posthorn_testkit::{Answer, World};
use reqwest::Method;

const CONSOLE: &str = "https://console.example.com";

async fn preflight(world: &World, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,content-type,if-match"),
    ];
    world.api().ask(Method::OPTIONS, "/v1/subscriptions/sub_x", &headers, None).await
}

#[tokio::test]
async fn a_page_that_the_deployment_names_may_call_the_api_and_no_other_page() {
    let world = World::start_with(&[("DISPATCHER_API__ALLOWED_ORIGINS", CONSOLE)]).await;

    let allowed = preflight(&world, CONSOLE).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, CONSOLE));
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        assert!(allowed.header("access-control-allow-methods").contains(method), "{method}: {allowed:?}");
    }
    for header in ["authorization", "content-type", "idempotency-key", "if-match"] {
        assert!(
            allowed.header("access-control-allow-headers").to_lowercase().contains(header),
            "{header}: {allowed:?}"
        );
    }
    let answer = world.api().ask(Method::GET, "/v1/tenants", &[("origin", CONSOLE)], None).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, CONSOLE));
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let refused = world.api().ask(Method::GET, "/v1/nothing", &[("origin", CONSOLE)], None).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (404, CONSOLE), "a page reads errors");

    assert_eq!(preflight(&world, "https://evil.example.com").await.header("access-control-allow-origin"), "");
    let other = world.api().ask(Method::GET, "/v1/tenants", &[("origin", "https://evil.example.com")], None).await;
    assert_eq!(
        (other.status, other.header("access-control-allow-origin")),
        (200, ""),
        "the browser keeps it from the page"
    );
}

#[tokio::test]
async fn no_page_may_call_the_api_unless_the_deployment_says_so() {
    let world = World::start().await;
    assert_eq!(preflight(&world, CONSOLE).await.status, 405);
    let answer = world.api().ask(Method::GET, "/v1/tenants", &[("origin", CONSOLE)], None).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""));
}
