"""Webhooks as provider files declare them; published signatures go through the real check."""

from dataclasses import replace
from typing import Any

import pytest

from ingest.core.signature import Invalid, Valid
from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import check
from schemas.expression import Template
from schemas.provider import ProviderSpec
from schemas.registration import registration_of
from schemas.triggers import SignatureSpec, triggers_of
from tests.contract.cases import CATALOGUE, providers


def _vectors() -> list[Any]:
    found = []
    for spec in CATALOGUE:
        triggers = triggers_of(spec)
        for number, vector in enumerate((spec.triggers or {}).get("vectors") or ()):
            assert triggers is not None
            place = int(vector.get("scheme", "[-1]").rpartition("[")[2].rstrip("]")) + 1
            declared = triggers.signatures[place]
            if "signed" in vector:
                declared = replace(declared, signed=Template(vector["signed"]))
            # When it was made matters not: what is published is old.
            declared = replace(declared, tolerance_s=None)
            found.append(pytest.param(declared, vector, id=f"{spec.slug}-{number}"))
    assert found
    return found


def _request(declared: SignatureSpec, vector: dict[str, Any], body: str) -> VendorRequest:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    headers.setdefault("content-type", vector.get("content_type", "text/plain"))
    if declared.header:
        headers.setdefault(declared.header, vector["signature"])
    url = vector.get("url", "https://nhood.example/hooks/hook_1")
    _, _, query = url.partition("?")
    return VendorRequest(vector.get("method", "POST"), url, query, headers, body.encode())


@pytest.mark.parametrize(("declared", "vector"), _vectors())
def test_published_vector_is_accepted(declared: SignatureSpec, vector: dict[str, Any]) -> None:
    request = _request(declared, vector, vector["body"])
    assert isinstance(check(declared, request, [vector["secret"]], 0), Valid)


@pytest.mark.parametrize(("declared", "vector"), _vectors())
def test_tampered_vector_is_refused(declared: SignatureSpec, vector: dict[str, Any]) -> None:
    tampered = _request(declared, vector, vector["body"] + " ")
    assert isinstance(check(declared, tampered, [vector["secret"]], 0), Invalid)
    request = _request(declared, vector, vector["body"])
    assert isinstance(check(declared, request, ["x" + vector["secret"]], 0), Invalid)


@pytest.mark.parametrize("spec", providers())
def test_webhooks_are_declared_whole(spec: ProviderSpec) -> None:
    triggers = triggers_of(spec)
    if triggers is None or not triggers.receivable:
        return
    assert triggers.events, "name the most used events"
    assert triggers.signatures, "say how it signs; `algorithm: none` where it does not"
    for event in triggers.events:
        assert triggers.check_event(event) is None


@pytest.mark.parametrize("spec", providers())
def test_registration_reads_only_what_there_is(spec: ProviderSpec) -> None:
    plan = registration_of(spec)
    if plan is None:
        return
    known = {"params", "connection", "callback_url", "secret", "subscription"}
    known |= {"expires_at"} if plan.life_s is not None else set()
    calls = [call for call in (plan.create, plan.ask_secret, plan.renew, plan.remove) if call]
    for call in calls:
        body = call.json.paths if call.json is not None else ()
        assert {path.root for path in (*call.path.paths, *body)} <= known
    assert all(
        path.root == "body" for told in (plan.id, plan.secret) if told for path in told.paths
    )
