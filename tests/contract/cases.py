"""The catalogue as pytest parameters: every provider, every action."""

from typing import Any

import orjson
import pytest

from executors.core.action import call
from executors.core.outcome import Outcome
from executors.core.request import Request, Response
from schemas.provider import ActionSpec, ProviderSpec, load_catalogue
from tests.contract.vendor import read_vendor

CATALOGUE = load_catalogue()
EFFECT_KEY = "5f0c2b7f9a"
NOW = 1_760_000_000.0

VENDORS = {spec.slug: read_vendor(spec.slug) for spec in CATALOGUE}
DEPARTURES = tuple(one for vendor in VENDORS.values() for one in vendor.departures)


def variables_of(spec: ProviderSpec) -> dict[str, str]:
    """Give values for the variables that a provider's account has."""
    samples = VENDORS[spec.slug].variables
    return {
        name: samples[name]
        for name, variable in spec.auth.variables.items()
        if variable.default is None
    }


def actions() -> list[Any]:
    """Give every action of every provider."""
    return [
        pytest.param(spec, action, id=f"{spec.slug}.{action.id}")
        for spec in CATALOGUE
        for action in spec.actions.values()
    ]


def providers() -> list[Any]:
    """Give every provider."""
    return [pytest.param(spec, id=spec.slug) for spec in CATALOGUE]


def response(status: int, body: Any = None, headers: dict[str, str] | None = None) -> Response:
    """Make an answer: text as it is, anything else as JSON, None as no body."""
    content = b"" if body is None else orjson.dumps(body)
    if isinstance(body, str):
        content = body.encode()
    return Response(status, headers or {}, content, NOW)


def run(
    spec: ProviderSpec, action: ActionSpec, params: dict[str, Any], answers: list[Response]
) -> tuple[list[Request], Outcome]:
    """Carry out an action on given answers; gives what was sent and how it ended."""
    steps = call(spec, action, params, variables_of(spec), EFFECT_KEY)
    sent: list[Request] = []
    waiting = iter(answers)
    try:
        request = next(steps)
        while True:
            sent.append(request)
            request = steps.send(next(waiting))
    except StopIteration as end:
        if end.value is None:
            pytest.fail(f"{spec.slug}.{action.id} asks for more than its example answers")
        return sent, end.value


def example_answers(action: ActionSpec) -> list[Response]:
    """Give the answers of an action's example."""
    earlier = [response(status, body) for status, body in action.example.earlier]
    last = action.example
    return [*earlier, response(last.status, last.body, dict(last.headers))]
