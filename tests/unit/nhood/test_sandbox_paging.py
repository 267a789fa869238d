"""Where a page of the sandbox's lists starts."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nhood.sandbox.acting import Act
from nhood.sandbox.paging import _start
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
