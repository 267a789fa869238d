"""What vendors' answers mean: every status at every action, and the fixtures of each provider."""

from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from executors.core.outcome import (
    Outcome,
    Rejected,
    Succeeded,
    Throttled,
    Unauthorised,
    Unavailable,
    Unknown,
    classify,
    classify_failure,
)
from schemas.expression import Template
from schemas.provider import ActionSpec, ProviderSpec
from tests.contract.cases import CATALOGUE, NOW, actions, providers, response


def _read(
    spec: ProviderSpec,
    action: ActionSpec,
    status: int,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Outcome:
    params = action.prepare(action.example.params)
    return classify(spec, action, response(status, body, headers), params)


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        (400, (Rejected,)),
        (401, (Unauthorised,)),
        (403, (Rejected,)),
        (404, (Rejected,)),
        (409, (Rejected, Unavailable)),
        (422, (Rejected,)),
        (429, (Throttled,)),
        (503, (Unavailable,)),
    ],
)
@pytest.mark.parametrize(("spec", "action"), actions())
def test_status_is_mapped(
    spec: ProviderSpec, action: ActionSpec, status: int, kinds: tuple[type, ...]
) -> None:
    outcome = _read(spec, action, status)
    assert isinstance(outcome, kinds)
    assert outcome.code
    assert outcome.message
    assert outcome.status == status


@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize(("spec", "action"), actions())
def test_server_error_is_unknown_where_a_repeat_could_do_harm(
    spec: ProviderSpec, action: ActionSpec, status: int
) -> None:
    harmless = action.repeatable or status in spec.api.retryable
    outcome = _read(spec, action, status, "<html>error</html>")
    assert isinstance(outcome, Unavailable if harmless else Unknown)


@pytest.mark.parametrize(("spec", "action"), actions())
def test_waiting_time_is_read_in_both_forms(spec: ProviderSpec, action: ActionSpec) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True)
    for text, seconds in (("7", 7.0), (date, 90.0)):
        for status in (429, 503):
            outcome = _read(spec, action, status, headers={"Retry-After": text})
            assert outcome.retry_after_s == seconds


@pytest.mark.parametrize("body", ["<html></html>", "{", b"\xff\xfe".decode("latin-1")])
@pytest.mark.parametrize(("spec", "action"), actions())
def test_unreadable_answer_is_no_success(spec: ProviderSpec, action: ActionSpec, body: str) -> None:
    if not isinstance(action.example.body, dict | list):
        return
    outcome = _read(
        spec, action, 200 if action.example.status == 204 else action.example.status, body
    )
    assert isinstance(outcome, Unavailable if action.repeatable else Unknown)


@pytest.mark.parametrize(("spec", "action"), actions())
def test_redirect_is_no_success(spec: ProviderSpec, action: ActionSpec) -> None:
    assert isinstance(_read(spec, action, 302, headers={"Location": "https://x.example"}), Rejected)


@pytest.mark.parametrize(
    "body", [None, [], [None], {}, {"error": None}, 0, "", "text", {"error": []}]
)
@pytest.mark.parametrize("spec", providers())
def test_any_body_can_be_read(spec: ProviderSpec, body: Any) -> None:
    for action in spec.actions.values():
        for status in (200, 204, 400, 401, 422, 429, 500):
            assert _read(spec, action, status, body).kind


@pytest.mark.parametrize(("spec", "action"), actions())
def test_lost_answer_is_unknown_where_a_repeat_could_do_harm(
    spec: ProviderSpec, action: ActionSpec
) -> None:
    lost = classify_failure(spec, action, "may_have_arrived", "ReadTimeout")
    assert isinstance(lost, Unavailable if action.repeatable else Unknown)
    assert isinstance(classify_failure(spec, action, "never_sent", "ConnectError"), Unavailable)


def _fixtures() -> list[Any]:
    found = [
        pytest.param(spec, path, id=f"{spec.slug}.{path.stem}")
        for spec in CATALOGUE
        for path in sorted((spec.folder / "fixtures").glob("*.json"))
    ]
    assert found
    return found


@pytest.mark.parametrize(("spec", "path"), _fixtures())
def test_fixture_is_read_as_stated(spec: ProviderSpec, path: Path) -> None:
    name, _, case = path.stem.partition("__")
    assert case, "a fixture is called <action>__<case>.json"
    action = spec.action(name)
    fixture = orjson.loads(path.read_bytes())
    answer, stated = fixture["response"], fixture["outcome"]
    given = fixture.get("request", {}).get("params", action.example.params)
    assert action.check_params(given) == []
    outcome = classify(
        spec,
        action,
        response(answer["status"], answer["body"], answer["headers"]),
        action.prepare(given),
    )
    told = {name: getattr(outcome, name) for name in stated}
    assert told == stated
    assert isinstance(outcome, Succeeded) or outcome.message


@pytest.mark.parametrize("spec", providers())
def test_each_provider_has_fixtures_of_every_kind(spec: ProviderSpec) -> None:
    kinds = {
        orjson.loads(path.read_bytes())["outcome"]["kind"]
        for path in (spec.folder / "fixtures").glob("*.json")
    }
    assert kinds >= {"succeeded", "rejected", "throttled", "unavailable", "unauthorised", "unknown"}


def _in_body(spec: ProviderSpec) -> list[Template]:
    templates = (*spec.api.failure.codes, *spec.api.failure.texts)
    return [one for one in templates if one.paths and one.paths[0].root == "body"]


def _told(steps: tuple[str | int, ...], value: Any) -> Any:
    """Make a body that has a value at a path."""
    for step in reversed(steps):
        value = [value] if isinstance(step, int) else {step: value}
    return value


@pytest.mark.parametrize("spec", providers())
def test_each_code_of_the_map_leads_to_its_outcome(spec: ProviderSpec) -> None:
    # Of two rules for one code the second would never be reached.
    action = next(iter(spec.actions.values()))
    seen: set[str] = set()
    for rule in spec.errors:
        if rule.when is None and not rule.statuses:
            assert not rule.codes & seen, rule.codes & seen
            seen |= rule.codes
        for code in rule.codes:
            bodies = [_told(template.paths[0].steps, code) for template in _in_body(spec)]
            read = [_read(spec, action, 400, body) for body in bodies]
            assert any(outcome.code == code and outcome.message for outcome in read)
