"""One vendor as the sandbox plays it: its addresses, its OAuth server, its things."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urlsplit

from nhood.sandbox.grants import GrantBook
from nhood.sandbox.plan import Plan, path_pattern, plan_action
from nhood.sandbox.records import Accounts, Record
from nhood.sandbox.sheet import RouteSheet, Shape, Sheet, read_sheet
from nhood.sandbox.subscribing import HookCall, Subscriptions, hook_calls
from nhood.sandbox.wire_in import FORM, Answer, Incoming, json_answer
from schemas.expression import Roots, Template
from schemas.provider import Catalogue, ProviderSpec
from schemas.provider_auth import IN_URL, AuthSpec

Part = Literal["authorize", "token", "revoke", "account", "action", "extra", "hooks"]


@dataclass(frozen=True, slots=True)
class Route:
    """What stands at an address."""

    part: Part
    plan: Plan | None = None
    extra: RouteSheet | None = None
    hook: HookCall | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A route that was found, with what its path's variables hold."""

    route: Route
    groups: Mapping[str, str]


@dataclass(slots=True)
class Vendor:
    """A provider with its sheet and its routes.

    Attributes:
        spec: With the consent as its `auth`, where it has one.
        entered: Its ways to connect with what a customer enters.
        thing_at: Where in every answer the thing lies that it is about.
    """

    spec: ProviderSpec
    sheet: Sheet
    entered: tuple[AuthSpec, ...] = ()
    thing_at: tuple[str, ...] = ()
    _fixed: dict[tuple[str, str], list[Route]] = field(default_factory=dict)
    _open: list[tuple[str, re.Pattern[str], Route]] = field(default_factory=list)

    def add(self, method: str, source: str, route: Route) -> None:
        """Put something at an address template."""
        path, pattern = path_pattern(source)
        if pattern is None:
            self._fixed.setdefault((method, path), []).append(route)
            return
        self._open.append((method, pattern, route))
        # the more is fixed, the earlier it is tried: /leads/{id} before /{kind}/{id}
        self._open.sort(key=lambda item: item[1].groups)

    def find(self, incoming: Incoming) -> Match | None:
        """Find what stands at a request's address; of several actions the one that fits best."""
        routes = self._fixed.get((incoming.method, incoming.path))
        if routes is not None:
            return Match(_best(routes, incoming), {}) if len(routes) > 1 else Match(routes[0], {})
        found: list[tuple[Route, Mapping[str, str]]] = []
        fewest = None
        for method, pattern, route in self._open:
            if method != incoming.method or (fewest is not None and pattern.groups > fewest):
                continue
            match = pattern.fullmatch(incoming.path)
            if match is not None:
                groups = {name: unquote(text) for name, text in match.groupdict().items()}
                found.append((route, groups))
                fewest = pattern.groups
        if not found:
            return None
        best = _best([route for route, _ in found], incoming)
        return next(Match(route, groups) for route, groups in found if route is best)

    def plans(self) -> list[Plan]:
        """Give every action that takes one request; look-ups first: they tell most of a thing."""
        fixed = (route for routes in self._fixed.values() for route in routes)
        routes = (*fixed, *(route for _, _, route in self._open))
        plans = [route.plan for route in routes if route.plan is not None]
        return sorted(plans, key=lambda plan: plan.kind not in ("get", "create"))

    def likeness(self, resource: str) -> Mapping[str, Any]:
        """Give the names of an example of this kind, in whose form new ones are made."""
        for plan in self.plans():
            if plan.spec.resource == resource and plan.names:
                return plan.names
        return {"id": "0000000001"}

    def as_declared(self, incoming: Incoming) -> Incoming:
        """Read a request in the form in which it is declared.

        A credential in the path goes among the headers, under `IN_URL`; a GET is the POST of the
        same, or the reverse, where the vendor takes either.
        """
        incoming = self._without_credential(incoming)
        if not self.sheet.either or self.find(incoming) is not None:
            return incoming
        if incoming.method == "GET":
            headers = {**incoming.headers, "content-type": FORM}
            body = incoming.query.encode()
            return replace(incoming, method="POST", headers=headers, body=body, query="")
        data = incoming.data if isinstance(incoming.data, Mapping) else {}
        return replace(incoming, method="GET", body=b"", query=urlencode(data))

    def _without_credential(self, incoming: Incoming) -> Incoming:
        before, found, _ = urlsplit(self.spec.api.base_url.source).path.partition(IN_URL)
        if not found or not incoming.path.startswith(before):
            return incoming
        credential, slash, rest = incoming.path.removeprefix(before).partition("/")
        headers = {**incoming.headers, IN_URL: unquote(credential)}
        return replace(incoming, path=f"{before}{IN_URL}{slash}{rest}", headers=headers)

    def fill(self, shape: Shape, roots: Roots) -> Answer:
        """Make an answer of a shape."""
        if shape.text is not None:
            return Answer(shape.status, shape.text.encode(), shape.headers, "text/plain")
        body = shape.body.render(roots) if shape.body is not None else None
        return json_answer(shape.status, body, shape.headers)

    def error(self, name: str, **said: object) -> Answer:
        """Make one of the vendor's usual errors."""
        roots = {"message": "", "field": "", "id": "", "params": {}, "needed": "", **said}
        return self.fill(self.sheet.errors[name], roots)


def _best(routes: list[Route], incoming: Incoming) -> Route:
    def score(route: Route) -> tuple[int, int, int]:
        plan = route.plan
        if route.hook is not None:
            return route.hook.fits(incoming), 0, 0
        if plan is None:
            return 0, 0, 0
        return plan.fits(incoming), -plan.lacks(incoming), plan.knows(incoming)

    return max(routes, key=score)


def build_vendors(catalogue: Catalogue) -> dict[str, Vendor]:
    """Build every vendor of the catalogue.

    Raises:
        InvalidInput: A sandbox.yaml cannot be used.
    """
    return {spec.slug: _build(spec) for spec in catalogue}


def _build(spec: ProviderSpec) -> Vendor:
    shown = spec.api.output
    place = tuple(str(step) for step in shown.paths[0].steps) if shown is not None else ()
    consented = spec.connected_by("oauth2")
    vendor = Vendor(consented, read_sheet(spec.folder), spec.auth.entered, place)
    _add_auth(vendor, spec.auth.ways)
    for action in spec.actions.values():
        plan = plan_action(action, vendor.sheet)
        if plan is not None and action.request is not None:
            base = action.request.base_url or spec.api.base_url
            source = base.source + action.request.path.source
            vendor.add(action.request.method, source, Route("action", plan))
    for call in hook_calls(spec):
        vendor.add(call.method, spec.api.base_url.source + call.path, Route("hooks", hook=call))
    for extra in vendor.sheet.routes:
        source = re.sub(r"\{(\w+)\}", r"${params.\1}", extra.path)
        vendor.add(extra.method, source, Route("extra", extra=extra))
    return vendor


def _add_auth(vendor: Vendor, ways: Sequence[AuthSpec]) -> None:
    auth = vendor.spec.auth
    parts: list[tuple[str, Template | None, Part]] = [
        ("GET", auth.authorize_url, "authorize"),
        ("POST", auth.authorize_url, "authorize"),
        ("POST", auth.token_url, "token"),
    ]
    if auth.refresh_url is not None:
        parts.append(("POST", auth.refresh_url, "token"))
    if auth.revoke is not None:
        parts.append((auth.revoke.method, auth.revoke.url, "revoke"))
    for way in ways:
        if way.account is not None and way.account.request is not None:
            parts.append((way.account.request.method, way.account.request.url, "account"))
        if way.kind == "client_credentials":
            parts.append(("POST", way.token_url, "token"))
    for method, template, part in parts:
        if template is not None:
            vendor.add(method, template.source, Route(part))


def seeds(vendors: Mapping[str, Vendor]) -> dict[str, list[tuple[str, Record]]]:
    """Collect the things that the examples speak of: each account begins with them."""
    found: dict[str, list[tuple[str, Record]]] = {}
    for slug, vendor in vendors.items():
        things: list[tuple[str, Record]] = []
        known: set[tuple[str, str]] = set()
        for resource, names in _named(vendor):
            spellings = {(resource, str(name)) for name in names.values()}
            if known.isdisjoint(spellings):
                known |= spellings
                things.append((resource, Record(0, names, {})))
        found[slug] = things
    return found


def _named(vendor: Vendor) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give every thing that an example names, those that look it up first."""
    for plan in vendor.plans():
        if plan.kind in ("get", "update", "delete") and plan.names:
            yield plan.spec.resource, plan.names
        for reference in vendor.sheet.references:
            value = plan.spec.example.params.get(reference.param)
            if isinstance(value, str | int) and not reference.is_name(str(value)):
                yield reference.resource, {"id": value}


@dataclass(slots=True)
class World:
    """Everything that the sandbox knows while it runs.

    Attributes:
        clock: UTC, seconds since 1970.
    """

    vendors: Mapping[str, Vendor]
    grants: GrantBook
    accounts: Accounts
    clock: Callable[[], float]
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
