"""Where a page of the sandbox's lists starts, and what it says of the next one."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nhood.sandbox.acting import Act
from nhood.sandbox.paging import _page, _start
from nhood.sandbox.wire_in import Incoming
from schemas.expression import Template
from schemas.provider import PagesSpec


def _doing(defaults: dict[str, Any], page: int) -> Act:
    pages = PagesSpec(Template("${body.tasks}"), "page", None, None, "page", None)
    plan = SimpleNamespace(spec=SimpleNamespace(pages=pages, defaults=defaults))
    return cast("Act", SimpleNamespace(plan=plan, params={"page": page}))


@pytest.mark.parametrize(
    ("defaults", "page", "start"),
    [({}, 1, 0), ({}, 3, 20), ({"page": 0}, 0, 0), ({"page": 0}, 2, 20)],
)
def test_first_page_has_the_number_that_the_vendor_gives_it(
    defaults: dict[str, Any], page: int, start: int
) -> None:
    assert _start(_doing(defaults, page), 10, []) == start


@pytest.mark.parametrize(
    ("page", "headers"),
    [(1, {"link": '</v2/tasks?page=2>; rel="next"', "x-next-page": "2"}), (2, {})],
)
def test_headers_say_where_a_list_goes_on_until_it_ends(page: int, headers: dict[str, str]) -> None:
    pages = PagesSpec(Template("${body}"), "page", None, None, "page", None)
    plan = SimpleNamespace(
        spec=SimpleNamespace(pages=pages, defaults={}),
        body=[],
        items=(),
        sheet=SimpleNamespace(page={"headers.link": "link", "headers.x-next-page": "next_page"}),
    )
    api = SimpleNamespace(base_url=Template("https://api.acme.example"))
    doing = SimpleNamespace(
        plan=plan,
        params={"page": page, "per_page": 2},
        incoming=Incoming("acme", "GET", "/v2/tasks", "", {}, b""),
        vendor=SimpleNamespace(spec=SimpleNamespace(api=api)),
    )
    assert _page(cast("Act", doing), [1, 2, 3]) == ([[1, 2], [3]][page - 1], headers)
