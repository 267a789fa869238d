"""Each vendor's story in the sandbox: things are made, changed, found, listed and refused."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from executors.core.outcome import Outcome, Succeeded
from tests.contract.cases import VENDORS
from tests.contract.story import Step, at, filled, missing
from tests.integration.sandbox_parts import CATALOGUE, Playground, running_sandbox


@pytest.fixture
async def sandbox() -> AsyncIterator[Playground]:
    async with running_sandbox() as playground:
        yield playground


@pytest.mark.parametrize("slug", [slug for slug, vendor in VENDORS.items() if vendor.story])
async def test_story_of_a_vendor_goes_as_told(sandbox: Playground, slug: str) -> None:
    kept: dict[str, Any] = {}
    for number, step in enumerate(VENDORS[slug].story):
        where = f"{slug}, step {number}, {step.do}"
        if step.fault is not None:
            await sandbox.fault(slug, step.do, dict(step.fault))
        params = filled(step.params, kept)
        assert CATALOGUE.get(slug).action(step.do).check_params(params) == [], where
        key = step.key or f"step-{number}"
        outcome = await sandbox.act(slug, step.do, params, key=key)
        faults = _faults(step, outcome, kept)
        if step.sent is not None or step.path is not None:
            faults += _sent(step, (await sandbox.received(slug))[-1], kept)
        assert faults == [], where
        kept |= _kept(step, outcome)


def _faults(step: Step, outcome: Outcome, kept: Mapping[str, Any]) -> list[str]:
    if step.fails is not None:
        found = {"kind": outcome.kind, "code": outcome.code}
        return missing(dict(step.fails), found, loose=False)
    if not isinstance(outcome, Succeeded):
        return [f"{outcome.kind} {outcome.code}"]
    return [
        *missing(filled(step.gives, kept), outcome.output, loose=False, where="output"),
        *missing(filled(step.has, kept), outcome.output, loose=True, where="output"),
    ]


def _sent(step: Step, request: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    faults = missing(filled(step.sent, kept), request["body"], loose=False, where="sent")
    if step.path is not None and filled(step.path, kept) not in request["path"]:
        faults.append(f"path: {request['path']}")
    return faults


def _kept(step: Step, outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, Succeeded):
        return {}
    return {
        name: outcome.vendor_id if path == "vendor_id" else at(outcome.output, path)
        for name, path in step.keep.items()
    }
