"""What Schemathesis has to know of the API and cannot read in a schema. It loads this as its hooks.

A request that a schema allows may still be refused, for a rule that no schema can say: the contract then has
it in the description of the field, and this table has it for the tool. Only these refusals are let pass, and
only where they name these fields; all else that is refused against the schema is a finding.
"""

import json
import re

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData

# Operations, the pointers in `errors` of their 422, and the rule.
RULES: list[tuple[str, str, str]] = [
    ("createApiKey", r"/expires_at", "a moment that has passed"),
    ("createSource|updateSource", r"/config(/.*)?", "each provider has fields of its own"),
    ("createSource|updateSource", r"/routing(/.*)?", "a tenant's leads to that tenant; headers are for `internal`"),
    ("createSource|updateSource", r"/slug", "only the operator's source has one, and only from its beginning"),
    ("createSubscription", r"/tenant_id", "the query names another, or the operator names none"),
    ("createSubscription|updateSubscription", r"/headers/.*", "`•••` needs a stored secret of that name"),
    ("createSubscription|updateSubscription", r"/signatures/[0-9]+(/header)?", "no two write the same header"),
    ("createSubscription|updateSubscription", r"/tls(/.*)?", "no pattern says what a certificate or a key in PEM is"),
    ("createSubscription|updateSubscription", r"/url", "some texts of that form are no URL"),
    (
        "listEvents|listDeliveries|listDeadLetters|groupDeadLetters",
        r"event_type",
        "each of the patterns has at most 128 bytes",
    ),
    ("putEventType", r"/schema(/.*)?|/sample(/.*)?", "the schema has to be one, and the sample has to fit it"),
    ("recoverSubscription", r"/since", "a moment before `until`, and before now"),
    ("replayDeadLetters", r"/filter/event_type", "each of the patterns has at most 128 bytes"),
    ("replayEvent", r"/subscription_id", "a subscription that there is not"),
    ("testSource", r"/event_type", "some providers' requests have no place for some types"),
    ("testSource|testSubscription", r"/payload(/.*)?", "no text holds a NUL; Twilio's is an object of form fields"),
    ("rotateSourceSecret|rotateSubscriptionSecret", r"/secret", "each provider and scheme has a form of its own"),
]

# Nothing that is sent out may leave this machine. Nobody listens at the port `discard`.
NAMED_HOST = re.compile(r"^(https?)://[A-Za-z0-9.:-]+(?=[/?]|$)")


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, object]) -> None:
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("url"), str):
        body["url"] = NAMED_HOST.sub(r"\1://127.0.0.1:9", body["url"])


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Whether it is one."""
    if isinstance(failure, RejectedPositiveData):
        return not (response.status_code == 412 or is_ruled(case, response))
    if isinstance(failure, AcceptedNegativeData):
        # It was not: what has no right `If-Match` is refused, in whatever way that is not right.
        return response.status_code != 412
    return True


def is_ruled(case: Case, response: Response) -> bool:
    """Whether it is refused for fields of which there is a rule, and for no others."""
    if response.status_code != 422:
        return False
    operation = str(case.operation.definition.raw["operationId"])
    pointers = [error["pointer"] for error in json.loads(response.content).get("errors", [])]
    # A pointer may hold any character: the names of fields are the caller's.
    rules = [at for of, at, _ in RULES if re.fullmatch(of, operation)]
    return bool(pointers) and all(any(re.fullmatch(at, pointer, re.DOTALL) for at in rules) for pointer in pointers)
