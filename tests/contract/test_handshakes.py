"""Handshakes are answered exactly as the vendors want, and nothing else is taken for one."""

from typing import Any

import orjson
import pytest

from ingest.core.handshake import find, reply
from ingest.core.vendor_request import VendorRequest
from nhood.sandbox.sample import roots_of
from nhood.sandbox.sheet import read_sheet
from schemas.provider import ProviderSpec, providers_folder
from schemas.triggers import TriggerSpec, triggers_of
from tests.contract.cases import CATALOGUE, VENDORS
from tests.contract.test_events import AT, SECRET, URL


def _triggers(spec: ProviderSpec) -> TriggerSpec:
    found = triggers_of(spec)
    assert found is not None
    return found


SHAKING = [
    spec for spec in CATALOGUE if (told := triggers_of(spec)) is not None and told.handshakes
]
KNOWN = [
    pytest.param(spec, known, id=f"{spec.slug}-{number}")
    for spec in SHAKING
    for number, known in enumerate(VENDORS[spec.slug].handshakes)
]


def _request(told: Any) -> VendorRequest:
    body = told.get("body", "")
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    headers = {name.lower(): value for name, value in told.get("headers", {}).items()}
    if not isinstance(body, str):
        headers = {"content-type": "application/json", **headers}
    return VendorRequest(told.get("method", "POST"), URL, told.get("query", ""), headers, content)


@pytest.mark.parametrize(("spec", "known"), KNOWN)
def test_handshake_is_answered_as_the_vendor_wants(spec: ProviderSpec, known: Any) -> None:
    request = _request(known["request"])
    handshake = find(_triggers(spec), request)
    assert handshake is not None
    answer, wanted = reply(handshake, request, [SECRET]), known["answer"]
    assert answer.status == wanted.get("status", 200)
    body = wanted.get("body", "")
    if isinstance(body, str):
        assert answer.content == body.encode()
    else:
        assert orjson.loads(answer.content) == body
        assert answer.content_type.startswith("application/json")
    for name, value in wanted.get("headers", {}).items():
        told = {"content-type": answer.content_type, **answer.headers}
        assert {key.lower(): text for key, text in told.items()}[name.lower()] == value
    assert answer.secret == known.get("secret")


@pytest.mark.parametrize("spec", SHAKING, ids=lambda spec: spec.slug)
def test_each_handshake_of_a_provider_is_known_here(spec: ProviderSpec) -> None:
    triggers = _triggers(spec)
    requests = [_request(known["request"]) for known in VENDORS[spec.slug].handshakes]
    found = [find(triggers, request) for request in requests]
    assert all(any(one is shake for one in found) for shake in triggers.handshakes)


@pytest.mark.parametrize("spec", SHAKING, ids=lambda spec: spec.slug)
def test_event_is_no_handshake(spec: ProviderSpec) -> None:
    samples = read_sheet(providers_folder() / spec.slug).events
    assert samples
    for sample in samples.values():
        rendered = sample.render(roots_of(spec.slug, URL, SECRET, "delivery-1", AT))
        headers = dict(rendered.headers)
        request = VendorRequest("POST", URL, rendered.query, headers, rendered.content)
        assert find(_triggers(spec), request) is None
