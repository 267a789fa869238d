"""Walks the pages of a list up to a bound; pure."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urljoin

from executors.core.outcome import Outcome, Succeeded, classify
from executors.core.request import Request, Response, render
from schemas.expression import ABSENT
from schemas.provider import ActionSpec, PagesSpec, ProviderSpec

PAGES_MAX: Final = 100
"""Pages that one step walks at most, so that a vendor whose list never ends cannot hold it."""


def collect(
    spec: ProviderSpec,
    action: ActionSpec,
    params: Mapping[str, Any],
    connection: Mapping[str, Any],
    effect_key: str,
    items_max: int,
) -> Generator[Request, Response, Outcome]:
    """Collect the items of a list over its pages.

    Args:
        spec: The provider.
        action: A list action that declares `pages`.
        params: Checked params, with their defaults.
        connection: The account's variables.
        effect_key: As for any call.
        items_max: Where to stop.

    Returns:
        The outcome of the last page as if it had held the items of all pages, at most `items_max`;
        the first page that is no success ends the walk as its outcome.
    """
    pages = action.pages
    if pages is None:
        raise AssertionError(f"{spec.slug}.{action.id} has no pages")
    path = pages.items.paths[0]
    request = render(spec, action, params, connection, effect_key)
    items: list[Any] = []
    pages_read = 0
    while True:
        response = yield request
        pages_read += 1
        outcome = classify(spec, action, response, params)
        if not isinstance(outcome, Succeeded):
            return outcome
        page = path.find({"body": response.body})
        items.extend(page if isinstance(page, list) else ())
        if len(items) >= items_max or pages_read == PAGES_MAX:
            break
        roots = {
            "body": response.body,
            "headers": response.headers,
            "status": response.status,
            "connection": spec.connection(connection),
        }
        if pages.more is not None and not pages.more.holds(roots):
            break
        if pages.next_url is not None:
            following = _by_url(pages, request, roots)
        else:
            step = _next_param(pages, params, roots, len(items))
            params = params if step is None else {**params, str(pages.param): step}
            following = (
                None if step is None else render(spec, action, params, connection, effect_key)
            )
        if following is None or following == request:
            break
        request = following
    whole = _put_at(response.body, path.steps, items[:items_max])
    return classify(spec, action, response.with_body(whole), params)


def _by_url(pages: PagesSpec, request: Request, roots: Mapping[str, Any]) -> Request | None:
    address = pages.next_url.find(roots) if pages.next_url is not None else ABSENT
    if not isinstance(address, str) or not address:
        return None
    # Twilio tells the path alone.
    following = replace(request, url=urljoin(request.url, address), query=())
    # The token must not follow an address to another host.
    return following if following.origin == request.origin else None


def _next_param(
    pages: PagesSpec, params: Mapping[str, Any], roots: Mapping[str, Any], seen: int
) -> object | None:
    if pages.step == "offset":
        return int(params.get(str(pages.param), 0)) + _length(pages, roots) if seen else None
    if pages.step == "page":
        return int(params.get(str(pages.param), 1)) + 1 if _length(pages, roots) else None
    value = pages.next.find(roots) if pages.next is not None else ABSENT
    return None if value is ABSENT or value in (None, "") else value


def _length(pages: PagesSpec, roots: Mapping[str, Any]) -> int:
    page = pages.items.find(roots)
    return len(page) if isinstance(page, list) else 0


def _put_at(node: Any, steps: tuple[str | int, ...], items: list[Any]) -> Any:  # noqa: ANN401
    """Put the items into the place of the last page's own."""
    if not steps:
        return items
    inside = node if isinstance(node, Mapping) else {}
    return {**inside, str(steps[0]): _put_at(inside.get(steps[0]), steps[1:], items)}
