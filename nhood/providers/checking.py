"""Looks whether a provider's folder is whole: what `nhood providers check` tells.

Shape, references and conditions are checked where the file is read; here each example is rendered
and its answer read, each documented failure goes through the error map, each published signature
through the check that ingest makes, and each sample of an event is read as ingest reads it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from executors.core.action import call
from executors.core.outcome import Outcome, Succeeded, classify
from executors.core.poll import asked, looked, started
from executors.core.request import Response
from ingest.core.signature import Valid
from ingest.core.vendor_event import split
from ingest.core.vendor_request import VendorRequest
from ingest.core.vendor_signature import check
from nhood.providers.account import variables_of
from nhood.sandbox.sample import roots_of
from nhood.sandbox.sheet import read_sheet
from schemas.errors import InvalidInput, NeighbourhoodError
from schemas.expression import Template
from schemas.polling import PollSpec, polls_of
from schemas.provider import ActionSpec, ProviderSpec
from schemas.triggers import triggers_of

_URL: Final = "https://nhood.example/hooks/hook_1"
_AT: Final = datetime(2026, 1, 31, 8, tzinfo=UTC)


def faults(spec: ProviderSpec, told: Mapping[str, str]) -> list[str]:
    """Name everything that is wrong with a provider, with its place; empty: it is whole."""
    try:
        account = variables_of(spec, told)
    except InvalidInput as error:
        return [error.public]
    return [
        *_unused_resources(spec),
        *(fault for one in spec.actions.values() for fault in _action(spec, one, account)),
        *_failures(spec),
        *_webhooks(spec),
        *_polls(spec),
    ]


def _unused_resources(spec: ProviderSpec) -> Iterator[str]:
    used = {action.resource for action in spec.actions.values()}
    for name in sorted(set(spec.resources) ^ used):
        yield f"resources: {name} is {'not declared' if name in used else 'used by no action'}"


def _action(spec: ProviderSpec, action: ActionSpec, account: Mapping[str, str]) -> Iterator[str]:
    place = f"actions.{action.id}"
    for problem in action.check_params(dict(action.example.params)):
        yield f"{place}.example.params.{problem.place}: {problem.message}"
        return
    answers = [*action.example.earlier, (action.example.status, action.example.body)]
    steps = call(spec, action, dict(action.example.params), account, "effect-key")
    waiting = iter(answers)
    outcome: Outcome | None = None
    try:
        next(steps)
        while True:
            status, body = next(waiting)
            headers = dict(action.example.headers)
            steps.send(Response(status, headers, _bytes(body), _AT.timestamp()))
    except StopIteration as end:
        outcome = end.value  # none where the answers were too few
    except NeighbourhoodError as error:
        yield f"{place}: {error.public}"
        return
    if outcome is None:
        yield f"{place}: asks for more than the {len(answers)} answers of its example"
    elif not isinstance(outcome, Succeeded):
        yield f"{place}.example: its answer is read as {outcome.kind} ({outcome.code})"


def _bytes(body: object) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


def _failures(spec: ProviderSpec) -> Iterator[str]:
    for path in sorted((spec.folder / "fixtures").glob("*.json")):
        action = spec.actions.get(path.stem.partition("__")[0])
        if action is None:
            yield f"fixtures/{path.name}: its name begins with no action"
            continue
        yield from _failure(spec, action, path)


def _failure(spec: ProviderSpec, action: ActionSpec, path: Path) -> Iterator[str]:
    captured = orjson.loads(path.read_bytes())
    told, wanted = captured["response"], captured["outcome"]
    params = captured.get("request", {}).get("params", action.example.params)
    headers = {name.lower(): str(value) for name, value in told.get("headers", {}).items()}
    answer = Response(told["status"], headers, _bytes(told.get("body")), _AT.timestamp())
    outcome = classify(spec, action, answer, action.prepare(params))
    found = {"kind": outcome.kind, "code": outcome.code}
    for name in found:
        if name in wanted and wanted[name] != found[name]:
            yield f"fixtures/{path.name}: {name} is {found[name]!r}, wanted {wanted[name]!r}"


def _webhooks(spec: ProviderSpec) -> Iterator[str]:
    try:
        triggers = triggers_of(spec)
        samples = read_sheet(spec.folder).events
    except InvalidInput as error:
        yield error.public
        return
    if triggers is None:
        return
    for number, vector in enumerate((spec.triggers or {}).get("vectors") or ()):
        if not _vector_holds(spec, vector):
            yield f"triggers.vectors[{number}]: the signature is refused"
    roots = roots_of(spec.slug, _URL, "secret", "delivery-1", _AT)
    for name, sample in samples.items():
        try:
            one = sample.render(roots)
            request = VendorRequest("POST", _URL, one.query, dict(one.headers), one.content)
            names = [draft.name for draft in split(triggers, request)]
        except NeighbourhoodError as error:
            yield f"sandbox.yaml: events.{name}: {error.public}"
            continue
        if names != [name]:
            yield f"sandbox.yaml: events.{name} is read as {names}"


def _polls(spec: ProviderSpec) -> Iterator[str]:
    """See that each poll asks what its action takes and finds something in its example answer."""
    try:
        polls = polls_of(spec)
    except InvalidInput as error:
        yield error.public
        return
    for event, poll in polls.items():
        try:
            yield from (f"polls.{event}: {text}" for text in _polled(spec, poll))
        except InvalidInput as error:
            yield f"polls.{event}: {error.public}"


def _polled(spec: ProviderSpec, poll: PollSpec) -> Iterator[str]:
    state = None
    for _ in range(3):  # where to begin, the first look, the one after
        question = asked(poll, poll.example, state, _AT)
        action = spec.action(question.action)
        for problem in action.check_params(question.params):
            yield f"{action.id}: {problem.place}: {problem.message}"
        outcome = _read(spec, action)
        if question.starts:
            state = started(poll, outcome.output)
            continue
        found = looked(poll, state, outcome.output, _AT)
        if not (found.state.seen or poll.positions):
            yield f"nothing is found in the example answer of {action.id}"
        state = found.state


def _read(spec: ProviderSpec, action: ActionSpec) -> Outcome:
    shown = action.example
    answer = Response(shown.status, dict(shown.headers), _bytes(shown.body), _AT.timestamp())
    return classify(spec, action, answer, action.prepare(dict(shown.params)))


def _vector_holds(spec: ProviderSpec, vector: Mapping[str, Any]) -> bool:
    """Check a published signature; its age counts not, for what is published is old."""
    triggers = triggers_of(spec)
    if triggers is None:
        return False
    place = int(vector.get("scheme", "[-1]").rpartition("[")[2].rstrip("]")) + 1
    declared = replace(triggers.signatures[place], tolerance_s=None)
    if "signed" in vector:
        declared = replace(declared, signed=Template(vector["signed"]))
    headers = {name.lower(): value for name, value in vector.get("headers", {}).items()}
    headers.setdefault("content-type", vector.get("content_type", "text/plain"))
    if declared.header:
        headers.setdefault(declared.header, vector["signature"])
    url = vector.get("url", _URL)
    method, query = vector.get("method", "POST"), url.partition("?")[2]
    request = VendorRequest(method, url, query, headers, vector["body"].encode())
    return isinstance(check(declared, request, [vector["secret"]], 0), Valid)
