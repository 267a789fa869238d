"""Lists that go on over pages: walked to their end, to the bound, and never past a failure."""

import copy
from typing import Any

import pytest

from executors.core.outcome import Succeeded, Throttled
from schemas.provider import ActionSpec, ProviderSpec
from schemas.provider_file import ITEMS_PARAM
from tests.contract.cases import actions, response, run

PAGED = [case for case in actions() if case.values[1].pages is not None]

# What tells that a list goes on, per way of saying so; every page but the last is given it.
_MORE: dict[str, dict[str, Any]] = {
    "slack.list_files": {"paging": {"page": 1, "pages": 3}},
    "slack": {"response_metadata": {"next_cursor": "page-{n}"}, "has_more": True},
    "salesforce": {"done": False, "nextRecordsUrl": "/services/data/v62.0/query/01g-{n}"},
    "jira.search_issues": {"nextPageToken": "page-{n}"},
    "jira": {"isLast": False},
    "zendesk": {"meta": {"has_more": True, "after_cursor": "page-{n}"}},
    "gmail": {"nextPageToken": "page-{n}"},
    "zoom.list_webinars": {"page_number": 1, "page_count": 3},
    "zoom": {"next_page_token": "page-{n}"},
    "microsoft_teams": {
        "@odata.nextLink": "https://graph.microsoft.com/v1.0/teams/t/channels?$skiptoken=page-{n}"
    },
}
_END: dict[str, dict[str, Any]] = {
    "slack.list_files": {"paging": {"page": 3, "pages": 3}},
    "slack": {"response_metadata": {"next_cursor": ""}, "has_more": False},
    "salesforce": {"done": True},
    "jira.search_issues": {},
    "jira": {"isLast": True},
    "zendesk": {"meta": {"has_more": False, "after_cursor": None}},
    "gmail": {},
    "zoom.list_webinars": {"page_number": 3, "page_count": 3},
    "zoom": {"next_page_token": ""},
    "microsoft_teams": {},
}


def _page(spec: ProviderSpec, action: ActionSpec, number: int, *, last: bool) -> dict[str, Any]:
    assert action.pages is not None
    body = copy.deepcopy(action.example.body)
    for name in ("response_metadata", "nextRecordsUrl", "nextPageToken", "meta"):
        body.pop(name, None)
    says = _END if last else _MORE
    told = says.get(f"{spec.slug}.{action.id}", says.get(spec.slug))
    assert told is not None, "tell here how this provider says that a list goes on"
    for name, value in told.items():
        filled = value.replace("{n}", str(number)) if isinstance(value, str) else value
        if isinstance(value, dict):
            filled = {k: v.format(n=number) if isinstance(v, str) else v for k, v in value.items()}
        body[name] = filled
    name = action.pages.items.paths[0].steps[0]
    body[name] = [{"id": f"{number}-{place}"} for place in range(2)]
    return dict(body)


def _items(action: ActionSpec, output: Any) -> list[str]:
    assert action.pages is not None
    return [item["id"] for item in output[action.pages.items.paths[0].steps[0]]]


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_list_is_walked_to_its_end(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [response(200, _page(spec, action, n, last=n == 3)) for n in (1, 2, 3)]
    params = {**action.example.params, ITEMS_PARAM: 100}
    sent, outcome = run(spec, action, params, pages)
    assert isinstance(outcome, Succeeded)
    assert _items(action, outcome.output) == ["1-0", "1-1", "2-0", "2-1", "3-0", "3-1"]
    assert len(sent) == 3
    assert len({request.full_url + str(request.json) for request in sent}) == 3
    assert len({request.origin for request in sent}) == 1


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_list_stops_at_the_bound(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [response(200, _page(spec, action, n, last=False)) for n in (1, 2)]
    sent, outcome = run(spec, action, {**action.example.params, ITEMS_PARAM: 3}, pages)
    assert len(sent) == 2
    assert _items(action, outcome.output) == ["1-0", "1-1", "2-0"]


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_failure_on_a_later_page_is_the_outcome(spec: ProviderSpec, action: ActionSpec) -> None:
    pages = [
        response(200, _page(spec, action, 1, last=False)),
        response(429, None, {"Retry-After": "3"}),
    ]
    _, outcome = run(spec, action, {**action.example.params, ITEMS_PARAM: 100}, pages)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 3.0


@pytest.mark.parametrize(("spec", "action"), PAGED)
def test_without_the_bound_one_page_is_read(spec: ProviderSpec, action: ActionSpec) -> None:
    page = response(200, _page(spec, action, 1, last=False))
    sent, outcome = run(spec, action, dict(action.example.params), [page])
    assert len(sent) == 1
    assert _items(action, outcome.output) == ["1-0", "1-1"]
