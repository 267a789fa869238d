"""Webhooks as the sandbox sends them are what the provider files say that vendors send."""

from typing import Any

import pytest

from ingest.core.vendor_event import split
from ingest.core.vendor_request import VendorRequest
from nhood.sandbox.accounts import ACCOUNT_DEFAULT, account_forms
from nhood.sandbox.sample import EventSample
from nhood.sandbox.sheet import read_sheet
from schemas.provider import ProviderSpec, providers_folder
from schemas.triggers import triggers_of
from tests.contract.cases import CATALOGUE, NOW

URL = "https://nhood.example/hooks/hook_1"


def _samples() -> list[Any]:
    return [
        pytest.param(spec, name, sample, id=f"{spec.slug}.{name}")
        for spec in CATALOGUE
        for name, sample in read_sheet(providers_folder() / spec.slug).events.items()
    ]


def _roots(spec: ProviderSpec) -> dict[str, Any]:
    return {
        "account": account_forms(spec.slug, ACCOUNT_DEFAULT),
        "delivery": "delivery-1",
        "now": "2026-01-31T08:00:00Z",
        "epoch": int(NOW),
        "url": URL,
    }


@pytest.mark.parametrize(("spec", "name", "sample"), _samples())
def test_sample_is_read_as_the_event_it_is(
    spec: ProviderSpec, name: str, sample: EventSample
) -> None:
    rendered = sample.render(_roots(spec))
    request = VendorRequest("POST", URL, rendered.query, dict(rendered.headers), rendered.content)
    triggers = triggers_of(spec)
    assert triggers is not None
    assert triggers.check_event(name) is None
    found = split(triggers, request)
    assert [draft.name for draft in found] == [name]
    if triggers.account_id is not None:
        assert found[0].account is not None
