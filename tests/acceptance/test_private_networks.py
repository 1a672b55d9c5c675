"""A deployment that delivers to public addresses only."""

from collections.abc import Iterator

import pytest

from .stage import Stage, to_tenant
from .tenants import quick_retries
from .world import World


@pytest.fixture(scope="module")
def public_only(world: World) -> Iterator[None]:
    """Plain http stays allowed, so that it is the address that is refused."""
    yield
    world.up()


PRIVATE = [
    "http://127.0.0.1/hooks",
    "http://127.0.0.1:8080/hooks",
    "http://2130706433/hooks",
    "http://0x7f.1/hooks",
    "http://0177.0.0.1/hooks",
    "http://[::1]/hooks",
    "http://[::ffff:127.0.0.1]/hooks",
    "http://[64:ff9b::7f00:1]/hooks",
    "http://localhost/hooks",
    "http://api.localhost./hooks",
    "http://10.1.2.3/hooks",
    "http://172.16.0.1/hooks",
    "http://192.168.0.1/hooks",
    "http://169.254.169.254/latest/meta-data",
    "http://100.64.0.1/hooks",
    "http://0.0.0.0/hooks",
    "http://[fd00::1]/hooks",
    "http://[fe80::1]/hooks",
]


def test_a_private_endpoint_is_neither_registered_nor_called(stage: Stage, public_only: None) -> None:
    world, tenant, endpoint = stage.world, stage.tenant(), stage.endpoint()
    before = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(1))
    by_name = tenant.subscribe(endpoint.url.replace("127.0.0.1", "localhost"), "*", retry_policy=quick_retries(1))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    endpoint.expect(2, event_id=stripe.send().event_id)

    world.up(POSTHORN_ALLOW_PRIVATE_NETWORKS="false")

    for url in PRIVATE:
        body = {"url": url, "event_types": ["*"]}
        problem = tenant.api.refused(422, "validation-failed", "POST", "/v1/subscriptions", json=body)
        assert [error["pointer"] for error in problem["errors"]] == ["/url"], url
        tenant.api.refused(422, "validation-failed", "PATCH", before.path, json={"url": url})
    # A public address may be registered; nothing that asks for it is ever sent.
    tenant.subscribe("http://1.1.1.1/hooks", "never")

    receipt = stripe.send()

    for subscription in (before, by_name):
        (attempt,) = tenant.delivery(subscription, receipt.event_id, "dead")["attempts"]
        assert attempt["error"].startswith("address_not_permitted")
        assert attempt["status_code"] is None
    assert endpoint.counted()[receipt.event_id] == 0
