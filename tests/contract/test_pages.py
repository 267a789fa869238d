"""Lists that go on over pages: walked to their end, to the bound, and never past a failure."""

import copy
from typing import Any

import pytest

from executors.core.outcome import BARE_LIST, Succeeded, Throttled
from executors.core.request import Response
from schemas.provider import ActionSpec, ProviderSpec
from schemas.provider_file import ITEMS_PARAM
from tests.contract.cases import VENDORS, actions, response, run

PAGED = [case for case in actions() if case.values[1].pages is not None]


def _page(
    spec: ProviderSpec, action: ActionSpec, number: int, *, last: bool, size: int = 2
) -> Response:
    assert action.pages is not None
    items = [{"id": f"{number}-{place}"} for place in range(size)]
    ends = VENDORS[spec.slug].ends(action.id)
    headers = {} if last else {k: v.replace("{n}", str(number)) for k, v in ends.headers.items()}
    path = action.pages.items.paths[0].steps
    if not path:
        return response(200, items, headers)
    body = copy.deepcopy(action.example.body)
    for name in ("response_metadata", "nextRecordsUrl", "nextPageToken", "meta"):
        body.pop(name, None)
    told = _numbered(ends.end if last else ends.more, number)
    body = _laid_over(body, told)
    inside = body
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = items
    return response(200, body, headers)


def _numbered(value: Any, number: int) -> Any:
    if isinstance(value, dict):
        return {name: _numbered(item, number) for name, item in value.items()}
    return value.replace("{n}", str(number)) if isinstance(value, str) else value


def _laid_over(body: Any, told: Any) -> Any:
    if not isinstance(body, dict) or not isinstance(told, dict):
        return told
    return body | {name: _laid_over(body.get(name), item) for name, item in told.items()}


def _items(spec: ProviderSpec, action: ActionSpec, output: Any) -> list[str]:
    assert action.pages is not None
    shown = action.output or spec.api.output
    above = shown.paths[0].steps if shown is not None else ()
    for step in action.pages.items.paths[0].steps[len(above) :] or (BARE_LIST,):
        output = output[step]
    return [item["id"] for item in output]


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_list_is_walked_to_its_end(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [_page(spec, action, n, last=n == 3) for n in (1, 2, 3)]
    if VENDORS[spec.slug].ends(action.id).empty:
        pages.append(_page(spec, action, 4, last=True, size=0))
    params = {**action.example.params, ITEMS_PARAM: 100}
    sent, outcome = run(spec, action, params, pages)
    assert isinstance(outcome, Succeeded)
    assert _items(spec, action, outcome.output) == ["1-0", "1-1", "2-0", "2-1", "3-0", "3-1"]
    assert len(sent) == len(pages)
    assert len({request.full_url + str(request.json) for request in sent}) == len(pages)
    assert len({request.origin for request in sent}) == 1


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_list_stops_at_the_bound(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [_page(spec, action, n, last=False) for n in (1, 2)]
    sent, outcome = run(spec, action, {**action.example.params, ITEMS_PARAM: 3}, pages)
    assert len(sent) == 2
    assert _items(spec, action, outcome.output) == ["1-0", "1-1", "2-0"]


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_failure_on_a_later_page_is_the_outcome(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [
        _page(spec, action, 1, last=False),
        response(429, None, {"Retry-After": "3"}),
    ]
    _, outcome = run(spec, action, {**action.example.params, ITEMS_PARAM: 100}, pages)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 3.0


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_without_the_bound_one_page_is_read(spec: ProviderSpec, action: ActionSpec) -> None:
    page = _page(spec, action, 1, last=False)
    sent, outcome = run(spec, action, dict(action.example.params), [page])
    assert len(sent) == 1
    assert _items(spec, action, outcome.output) == ["1-0", "1-1"]
