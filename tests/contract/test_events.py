"""Webhooks as the sandbox sends them are what the provider files say that vendors send."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.signature import Absent, Invalid, Valid
from ingest.core.vendor_event import split
from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import check
from nhood.sandbox.sample import EventSample, roots_of
from nhood.sandbox.sheet import read_sheet
from nhood.sandbox.signing import public_key, sign, signable
from schemas.errors import InvalidInput
from schemas.provider import ProviderSpec, providers_folder
from schemas.triggers import triggers_of
from tests.contract.cases import CATALOGUE

URL = "https://nhood.example/hooks/hook_1"
SECRET = "5f" * 32
AT = datetime(2026, 1, 31, 8, tzinfo=UTC)
NOW = int(AT.timestamp())


def _samples() -> list[Any]:
    return [
        pytest.param(spec, name, sample, id=f"{spec.slug}.{name}")
        for spec in CATALOGUE
        for name, sample in read_sheet(providers_folder() / spec.slug).events.items()
    ]


def _receives(spec: ProviderSpec) -> bool:
    triggers = triggers_of(spec)
    return triggers is not None and triggers.receivable


@pytest.mark.parametrize(("spec", "name", "sample"), _samples())
def test_sample_is_read_as_the_event_it_is(
    spec: ProviderSpec, name: str, sample: EventSample
) -> None:
    rendered = sample.render(roots_of(spec.slug, URL, SECRET, "delivery-1", AT))
    request = VendorRequest("POST", URL, rendered.query, dict(rendered.headers), rendered.content)
    triggers = triggers_of(spec)
    assert triggers is not None
    assert triggers.check_event(name) is None
    found = split(triggers, request)
    assert [draft.name for draft in found] == [name]
    if triggers.account_id is not None:
        assert found[0].account is not None


@pytest.mark.parametrize(("spec", "name", "sample"), _samples())
def test_signed_sample_is_taken_and_a_changed_late_or_foreign_one_is_not(
    spec: ProviderSpec, name: str, sample: EventSample
) -> None:
    triggers = triggers_of(spec)
    assert triggers is not None
    try:
        scheme = signable(triggers)
    except InvalidInput:
        return  # only the vendor can sign it
    rendered = sample.render(roots_of(spec.slug, URL, SECRET, "delivery-1", AT))
    signed = sign(scheme, rendered, URL, SECRET, NOW)
    url = f"{URL}?{signed.query}" if signed.query else URL
    request = VendorRequest("POST", url, signed.query, dict(signed.headers), signed.content)
    item = split(triggers, request)[0].item
    if scheme is None:
        assert isinstance(check(None, request, [], NOW), Absent)
        return
    known = public_key(scheme.algorithm, SECRET)
    assert isinstance(check(scheme, request, [known], NOW, item=item), Valid)
    other = public_key(scheme.algorithm, "7a" * 32)
    assert isinstance(check(scheme, request, [other], NOW, item=item), Invalid)
    assert isinstance(check(scheme, request, [other, known], NOW, item=item), Valid)
    if scheme.signed is not None and "raw" in scheme.signed.source:
        changed = replace(request, content=request.content + b" ")
        assert isinstance(check(scheme, changed, [known], NOW, item=item), Invalid)
    if scheme.tolerance_s is not None:
        late = NOW + scheme.tolerance_s + 1
        assert isinstance(check(scheme, request, [known], late, item=item), Invalid)


@pytest.mark.parametrize("spec", [spec for spec in CATALOGUE if _receives(spec)])
def test_vendor_that_sends_webhooks_has_a_sample(spec: ProviderSpec) -> None:
    assert read_sheet(providers_folder() / spec.slug).events, "say under `events` what it sends"
