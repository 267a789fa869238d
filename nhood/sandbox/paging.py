"""Lists: what was made comes first, then the example's own things; cut into pages.

What an answer says of its page is told by `page` in sandbox.yaml, as {place: fact}. Facts: total,
count, page, pages, more, last, start, limit, next_page, and link (a Link header's text). A place
headers.X is a header, which is there only where the list goes on.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from nhood.sandbox import likeness, soql
from nhood.sandbox.plan import WirePath, dig
from nhood.sandbox.records import Record
from nhood.sandbox.wire_in import Answer, json_answer
from schemas.expression import ABSENT
from schemas.provider import PagesSpec

if TYPE_CHECKING:
    from nhood.sandbox.acting import Act

PAGE_DEFAULT: Final = 100
_HEADERS: Final = "headers."  # a place in the headers, told only where the list goes on
_SKIP: Final = "$skiptoken"  # where the next page starts, in addresses that vendors write whole
_LIMITS: Final = ("limit", "count", "page_size", "per_page", "maxResults", "max_results", "first")
# How ids are called inside things.
_SPELLINGS: Final = ("ts", "Id", "uuid", "gid", "sid")
_STEERING: Final = frozenset((*_LIMITS, "cursor", "page", "startAt", "start_at", "offset"))


def listed(doing: "Act") -> Answer:
    """Answer a list, or a look-up by something other than the id."""
    plan, example = doing.plan, doing.plan.spec.example
    if plan.items is None:
        return _look_up(doing)
    shown = dig(plan.body, plan.items)
    shown = shown if isinstance(shown, list) else []
    if plan.sheet.soql:
        items = soql.select(doing)
        if items is None:
            return doing.vendor.error("invalid", message="unexpected token", field="q")
    else:
        items = _own(doing, shown) + [item for item in shown if _passes(doing, item)]
    body, headers = _page(doing, items)
    return json_answer(example.status, body, {**example.headers, **headers})


def _look_up(doing: "Act") -> Answer:
    """Find one thing by what was sent of it, such as a person by address."""
    from nhood.sandbox.acting import answer_of

    shelf = doing.account.shelf(doing.plan.spec.resource)
    asked = {k: v for k, v in doing.params.items() if k not in _STEERING}
    for record in reversed(shelf.records.values()):
        flat = likeness.unwrapped(record.sent)
        if asked and all(flat.get(key) == value for key, value in asked.items()):
            return answer_of(doing, record)
    example = doing.plan.spec.example
    given = doing.plan.spec.prepare(example.params)
    if all(given.get(key) == value for key, value in asked.items()):
        return json_answer(example.status, example.body, example.headers)
    return doing.missing()


def _own(doing: "Act", shown: Sequence[Any]) -> list[Any]:
    """Give what was made in this account, newest first, in the form of the example's items."""
    shelf = doing.account.shelf(doing.plan.spec.resource)
    pattern = shown[0] if shown else {}
    items = []
    for record in reversed(shelf.records.values()):
        if record.number < 0:
            continue
        item = _item(doing, pattern, record)
        seen = item if isinstance(item, Mapping) else {}
        if _passes(doing, {**likeness.unwrapped(record.sent), **record.sent, **seen}):
            items.append(item)
    return items


def _item(doing: "Act", pattern: Any, record: Record) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(pattern, Mapping):
        return next(iter(record.names.values()))
    item = likeness.overlaid(pattern, record.sent, extend=doing.plan.resource.extend)
    item |= {
        name: likeness.stamp(record.made_s if when == "made" else record.changed_s)
        for name, when in doing.plan.resource.stamps.items()
    }
    pairs = {}
    for name, new in record.names.items():
        for spelling in (name, *_SPELLINGS):
            old = pattern.get(spelling)
            if isinstance(old, str | int):
                pairs[spelling] = (old, likeness.same_type(old, new))
                break
    return likeness.renamed(item, pairs)


def _passes(doing: "Act", item: Any) -> bool:  # noqa: ANN401 - JSON
    """Say whether a thing has what a list's params ask for, as far as it has such fields."""
    if not isinstance(item, Mapping):
        return True
    for param, value in doing.params.items():
        fields = doing.plan.sheet.match.get(param)
        if fields is not None:
            if not any(str(item.get(name)) == str(value) for name in fields):
                return False
        elif param in doing.plan.sheet.later:
            if not _is_later(item.get(doing.plan.sheet.later[param]), value):
                return False
        elif param in item and param not in _STEERING and _differs(item[param], value):
            return False
    return True


def _is_later(own: Any, asked: Any) -> bool:  # noqa: ANN401 - JSON
    """Compare ids as numbers and times as texts; vendors tell what is from that very time."""
    one, other = str(own), str(asked)
    return int(one) > int(other) if one.isdigit() and other.isdigit() else one >= other


def _differs(own: Any, asked: Any) -> bool:  # noqa: ANN401 - JSON
    if isinstance(own, list | Mapping) or asked == "all":
        return False
    return str(own) != str(asked)


def _page(doing: "Act", items: list[Any]) -> tuple[Any, dict[str, str]]:
    """Cut one page out; gives the body and the headers that say where it goes on."""
    from nhood.sandbox.acting import put

    plan, params = doing.plan, doing.params
    limit = next((params[name] for name in _LIMITS if isinstance(params.get(name), int)), 0)
    limit = limit or PAGE_DEFAULT
    start = _start(doing, limit, items)
    shown, total = items[start : start + limit], len(items)
    more = start + limit < total
    body = _put_list(plan.body, plan.items or (), shown)
    facts: dict[str, Any] = {
        "total": total,
        "count": len(shown),
        "start": start,
        "limit": limit,
        "page": start // limit + 1,
        "pages": max(1, -(-total // limit)),
        "more": more,
        "last": not more,
        "next_page": start // limit + 2,
        "link": f'<{doing.incoming.path}?page={start // limit + 2}>; rel="next"',
        "links": [{"rel": "next", "href": _link(doing, start + limit)}] if more else [],
    }
    headers = {}
    for place, fact in plan.sheet.page.items():
        if not place.startswith(_HEADERS):
            body = put(body, tuple(place.split(".")), facts[fact])
        elif more:
            headers[place.removeprefix(_HEADERS)] = str(facts[fact])
    pages = plan.spec.pages
    is_told = pages is not None and pages.step == "cursor" and not _is_keyset(pages)
    if is_told and pages is not None and pages.next is not None:
        path = tuple(str(step) for step in pages.next.paths[0].steps)
        if more:
            body = put(body, path, _cursor(start + limit))
        elif dig(body, path) is not ABSENT:
            body = put(body, path, "" if isinstance(dig(plan.body, path), str) else None)
    link = _link_place(doing)
    if link is None or not more:
        return body, headers
    address = _link(doing, start + limit)
    if link[0] == "headers":
        return body, {link[1]: f'<{address}>; rel="next"'}
    return put(body, link[1:], address), {}


def _is_keyset(pages: PagesSpec) -> bool:
    """Say whether the next page is asked for by the last thing of this one, not by a cursor."""
    return pages.next is not None and any(part.transforms for part in pages.next.references)


def _link_place(doing: "Act") -> tuple[str, ...] | None:
    """Say where the next page's address stands: `body` or `headers` and the way in it.

    None where it does not stand there whole.
    """
    pages = doing.plan.spec.pages
    paths = pages.next_url.paths if pages is not None and pages.next_url is not None else ()
    if len(paths) != 1 or paths[0].root not in ("body", "headers"):
        return None
    return (paths[0].root, *(str(step) for step in paths[0].steps))


def _link(doing: "Act", start: int) -> str:
    """Give the next page's address as the vendor would write it: under its own name."""
    query = {**doing.incoming.query_data(), _SKIP: _cursor(start)}
    home = urlsplit(doing.vendor.spec.api.base_url.source)
    return f"{home.scheme}://{home.netloc}{doing.incoming.path}?{urlencode(query)}"


def _start(doing: "Act", limit: int, items: Sequence[Any]) -> int:
    pages = doing.plan.spec.pages
    value = doing.params.get(pages.param) if pages is not None and pages.param else None
    if _link_place(doing) is not None:
        value = doing.incoming.query_data().get(_SKIP)
    if pages is None or value is None:
        return 0
    if pages.step == "page":
        first = doing.plan.spec.defaults.get(str(pages.param), 1)  # ClickUp counts from 0
        return max(0, int(value) - int(first)) * limit
    if pages.step == "offset":
        return max(0, int(value))
    if _is_keyset(pages):
        ids = [item.get("id") for item in items if isinstance(item, Mapping)]
        return ids.index(value) + 1 if value in ids else 0
    try:
        return int(base64.urlsafe_b64decode(str(value)).decode().removeprefix("at:"))
    except (binascii.Error, ValueError, UnicodeDecodeError):
        return 0


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"at:{start}".encode()).decode()


def _put_list(body: Any, path: WirePath, items: list[Any]) -> Any:  # noqa: ANN401 - JSON
    if not path:
        return items
    inside = body if isinstance(body, Mapping) else {}
    return {**inside, str(path[0]): _put_list(inside.get(path[0]), path[1:], items)}
