"""Every action's requests and example answers against the vendor's own description."""

from typing import Any

import pytest

from executors.core.outcome import Succeeded
from executors.core.request import Request
from schemas.provider import ActionSpec, ProviderSpec
from tests.contract.cases import (
    CATALOGUE,
    DEPARTURES,
    EFFECT_KEY,
    VENDORS,
    actions,
    example_answers,
    providers,
    run,
)
from tests.contract.described import Description, description_of
from tests.contract.described_graphql import Fault, GraphDescription
from tests.contract.sample import full_params


def _faults(spec: ProviderSpec, action: ActionSpec, params: dict[str, Any]) -> list[Fault]:
    description = description_of(spec.slug)
    if description is None:
        return []
    answers = example_answers(action)
    sent, _ = run(spec, action, params, answers)
    faults: list[Fault] = []
    for request, answer in zip(sent, answers, strict=True):
        operation = description.find(request)
        if operation is None:
            if _is_api(spec, request):
                faults.append(Fault("path", f"{request.method} {request.url} is not described"))
            continue
        if action.hook is None and operation.data.get("operationId") != action.operation_id:
            faults.append(Fault("operation_id", f"is {operation.data.get('operationId')}"))
        faults += description.request_faults(operation, request)
        if isinstance(description, GraphDescription):
            faults += description.example_faults(request, answer.body)
        shortened = VENDORS[spec.slug].shortened
        faults += description.answer_faults(
            operation, answer.status, answer.body, shortened=shortened
        )
    return faults


def _is_api(spec: ProviderSpec, request: Request) -> bool:
    # Slack's upload address is an answer of Slack's, not a part of its API.
    base = spec.api.base_url
    return not base.is_constant or request.url.startswith(base.source)


def _ours(spec: ProviderSpec, action: ActionSpec, faults: list[Fault]) -> list[Fault]:
    return [
        fault
        for fault in faults
        if not any(d.covers(spec.slug, action.id, fault.place) for d in DEPARTURES)
    ]


@pytest.mark.parametrize(("spec", "action"), actions())
def test_example_is_as_the_vendor_describes(spec: ProviderSpec, action: ActionSpec) -> None:
    faults = _faults(spec, action, dict(action.example.params))
    assert _ours(spec, action, faults) == []


@pytest.mark.parametrize(("spec", "action"), actions())
def test_every_param_goes_where_the_vendor_describes(
    spec: ProviderSpec, action: ActionSpec
) -> None:
    params = full_params(action)
    assert action.check_params(params) == []
    assert _ours(spec, action, _faults(spec, action, params)) == []


@pytest.mark.parametrize(("spec", "action"), actions())
def test_every_param_reaches_the_vendor(spec: ProviderSpec, action: ActionSpec) -> None:
    # A declared param that changes nothing of what is sent is a promise that is not kept.
    params = full_params(action)
    whole, _ = run(spec, action, params, example_answers(action))
    for name in params:
        if name in action.params.get("required", ()) or name in action.defaults:
            continue
        less = {key: value for key, value in params.items() if key != name}
        if action.check_params(less):
            continue
        sent, _ = run(spec, action, less, example_answers(action))
        assert sent != whole, name


@pytest.mark.parametrize(("spec", "action"), actions())
def test_example_succeeds_and_names_what_it_is_about(
    spec: ProviderSpec, action: ActionSpec
) -> None:
    sent, outcome = run(spec, action, dict(action.example.params), example_answers(action))
    assert isinstance(outcome, Succeeded), outcome
    assert isinstance(outcome.output, dict)
    assert set(action.result) <= set(outcome.output)
    assert ("id" in action.result) == (outcome.vendor_id is not None)
    assert all(request.full_url.startswith("https://") for request in sent)
    assert all(request.read_only for request in sent) or not action.read_only


@pytest.mark.parametrize(("spec", "action"), actions())
def test_effect_key_is_sent_where_the_vendor_takes_one(
    spec: ProviderSpec, action: ActionSpec
) -> None:
    sent, _ = run(spec, action, dict(action.example.params), example_answers(action))
    carried = [request for request in sent if EFFECT_KEY in (*request.headers.values(),)]
    in_body = [r for r in sent if isinstance(r.json, dict) and EFFECT_KEY in r.json.values()]
    assert bool(carried or in_body) == action.is_keyed


@pytest.mark.parametrize("spec", providers())
def test_each_described_action_names_its_operation(spec: ProviderSpec) -> None:
    description = description_of(spec.slug)
    if description is None:
        assert all(action.operation_id is None for action in spec.actions.values())
        return
    known = {operation.data.get("operationId") for operation in description.operations}
    for action in spec.actions.values():
        is_lacking = any(d.covers(spec.slug, action.id, "path") for d in DEPARTURES)
        assert is_lacking or action.hook is not None or action.operation_id in known, action.id


@pytest.mark.parametrize("departure", DEPARTURES, ids=lambda d: f"{d.slug}.{d.action}.{d.place}")
def test_departure_is_still_needed(departure: Any) -> None:
    spec = CATALOGUE.get(departure.slug)
    found = [
        fault
        for action in spec.actions.values()
        for params in (full_params(action), dict(action.example.params))
        for fault in _faults(spec, action, params)
        if departure.covers(spec.slug, action.id, fault.place)
    ]
    assert found, "the description allows it now: take the departure off the list"


def test_description_tells_faults() -> None:
    # The judge itself is able to find fault: one of each kind.
    description = description_of("jira")
    assert isinstance(description, Description)
    request = Request(
        "POST",
        "https://api.example/rest/api/3/project",
        json={"key": "EX", "name": 5, "colour": "red"},
        query=(("color", "x"),),
    )
    operation = description.find(request)
    assert operation is not None
    faults = {fault.place for fault in description.request_faults(operation, request)}
    assert faults == {"query.color", "body", "body.name", "body.colour"}
    answers = description.answer_faults(operation, 418, {})
    assert [fault.place for fault in answers] == ["status"]
