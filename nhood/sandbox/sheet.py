"""What the sandbox needs to know of a provider besides its `provider.yaml`: `sandbox.yaml`.

Everything in it has a default, so a provider without the file is played too: OAuth answers and
errors then look as the standards say. The file says how this vendor's look:

    oauth:
      token: {...}              body of the token answer; a template over `grant` and `account`
      refresh: {...}            of the refresh answer, where it differs
      account: {...}            body of the account look-up
      error: {status, body}     over `error` and `message`
      prefix: xoxb-             how access tokens begin
      reuse: revoke | refuse    what a used refresh token does: kills the whole grant, or only fails
    errors:                     answers over `params`, `message`, `field`, `id`
      unauthorised, invalid, not_found, forbidden, idempotency: {status, headers, body}
    resources:
      tickets:
        names: [id, key]        what it is called by; the action's `result` lifts them out
        prefix: {key: a.b}      where in the request the front part of a name like ED-24 comes from
        taken: {key: key}       names that the request itself gives
        singular: ticket        how a param that names one is called
        extend: true            answers hold every field that was sent, not only the example's
        stamps: {updated_at: changed}    fields that say when it was made or changed
        not_found: {...}
    actions:
      close_ticket:
        kind: update            create, get, list, update, delete, do; else told from its name
        id_param: ticket
        echo: {a.b: c.d}        answer's field <- request's field, where the names differ
        page: {count: total}    answer <- total count page pages more last start limit links
        refuse: [{when: CEL over params and body, status, body}]
        match: {ts: [ts, thread_ts]}   of a list: a param, and the fields of which one must equal it
        upsert: true            makes what is not there
        also: [todos]           of a deletion: further kinds of things that it ends
        soql: true              the list is asked for by a query
        later: {after: id}      of a list: a param, and the field that must be greater
        feed: {of: [files], since: cursor, item: {…}, answer: {…}}  see nhood/sandbox/feeding.py
        mime: raw               request's field that holds an e-mail, which is shown taken apart
    references:                 params that name a thing of the account
      - {param: channel, resource: channels, by: name, strip: "#", pattern: …, accept: …}
    routes:                     further addresses, such as upload hosts
      - {method: POST, path: "/upload/v1/{id}", status: 200, text: OK}
    either: true                GET and POST are the same: params in the query, a form or JSON
    events:                     what the vendor's webhooks look like, by event name
      issues: {headers: {x-github-event: issues}, body: {...}}     see nhood/sandbox/sample.py
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from nhood.sandbox.sample import EventSample, read_sample
from schemas.errors import InvalidInput
from schemas.expression import Condition, Tree
from schemas.provider_file import expanded

Kind = Literal["create", "get", "list", "update", "delete", "do"]

FILE: Final = "sandbox.yaml"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KEYS: Final = {
    "oauth": {"token", "refresh", "account", "error", "prefix", "reuse"},
    "errors": {"unauthorised", "invalid", "not_found", "forbidden", "idempotency"},
}
_TOP: Final = {*_KEYS, "resources", "actions", "references", "routes", "events", "either"}


@dataclass(frozen=True, slots=True)
class Shape:
    """An answer to be filled in."""

    status: int
    body: Tree | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule of the vendor that the params' schema does not say."""

    when: Condition
    shape: Shape


@dataclass(frozen=True, slots=True)
class FeedSheet:
    """A list of what changed."""

    of: frozenset[str]
    since: str
    item: Tree | None
    answer: Tree | None


@dataclass(frozen=True, slots=True)
class ActionSheet:
    """What cannot be told from an action's declaration."""

    kind: Kind | None = None
    id_param: str | None = None
    echo: Mapping[str, str] = field(default_factory=dict)
    refuse: tuple[Refusal, ...] = ()
    not_found: Shape | None = None
    upsert: bool = False
    also: tuple[str, ...] = ()
    page: Mapping[str, str] = field(default_factory=dict)
    match: Mapping[str, list[str]] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    feed: FeedSheet | None = None
    soql: bool = False
    mime: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceSheet:
    """What things of this kind look like."""

    not_found: Shape | None = None
    singular: str | None = None
    names: tuple[str, ...] = ("id",)
    prefix: Mapping[str, str] = field(default_factory=dict)
    taken: Mapping[str, str] = field(default_factory=dict)
    extend: bool = False
    stamps: Mapping[str, Literal["made", "changed"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReferenceSheet:
    """A param that names a thing which must be there.

    Attributes:
        by: Field of the thing that the param may hold instead of its id.
        strip: What may stand in front of it.
        pattern: A value like this is a name; where there is no such thing yet, it is made.
        accept: A value like this is taken as it is.
    """

    param: str
    resource: str
    by: str
    strip: str
    pattern: re.Pattern[str] | None
    accept: re.Pattern[str] | None

    def is_name(self, value: str) -> bool:
        """Say whether a value is a name rather than an id."""
        return self.pattern is not None and self.pattern.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class RouteSheet:
    """A further address."""

    method: str
    path: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Sheet:
    """A provider's sandbox.yaml, or what stands in for it."""

    token: Tree | None
    refresh: Tree | None
    account: Tree | None
    oauth_error: Shape
    prefix: str
    reuse_revokes: bool
    errors: Mapping[str, Shape]
    resources: Mapping[str, ResourceSheet]
    actions: Mapping[str, ActionSheet]
    references: tuple[ReferenceSheet, ...]
    routes: tuple[RouteSheet, ...]
    events: Mapping[str, EventSample]
    either: bool
    # provider.yaml as it is written: compiled templates do not tell their shape
    source: Mapping[str, Any] = field(repr=False)


_OAUTH_ERROR: Final = {"error": "${error}", "error_description": "${message}"}
_DEFAULT_ERRORS: Final = {
    "unauthorised": {"status": 401, "body": {"error": "unauthorized", "message": "${message}"}},
    "invalid": {"status": 400, "body": {"error": "invalid_request", "message": "${message}"}},
    "not_found": {"status": 404, "body": {"error": "not_found", "message": "${message}"}},
    "forbidden": {"status": 403, "body": {"error": "insufficient_scope", "message": "${message}"}},
    "idempotency": {"status": 409, "body": {"error": "idempotency", "message": "${message}"}},
}


def read_sheet(folder: Path) -> Sheet:
    """Read what the sandbox needs of a provider's folder.

    Raises:
        InvalidInput: sandbox.yaml is no YAML or says what is not known.
    """
    source = expanded(_load(folder / "provider.yaml"))
    path = folder / FILE
    data = _load(path) if path.is_file() else {}
    _check(data, source, path)
    oauth = data.get("oauth", {})
    errors = {**_DEFAULT_ERRORS, **data.get("errors", {})}
    return Sheet(
        token=_tree(oauth.get("token")),
        refresh=_tree(oauth.get("refresh")),
        account=_tree(oauth.get("account")),
        oauth_error=_shape(oauth.get("error", {"body": _OAUTH_ERROR}), 400),
        prefix=oauth.get("prefix", "sandbox-"),
        reuse_revokes=oauth.get("reuse", "revoke") == "revoke",
        errors={name: _shape(item, 400) for name, item in errors.items()},
        resources={n: _resource(item) for n, item in data.get("resources", {}).items()},
        actions={name: _action(item) for name, item in data.get("actions", {}).items()},
        references=tuple(_reference(item) for item in data.get("references", ())),
        routes=tuple(
            RouteSheet(item["method"], item["path"], _shape(item, 200))
            for item in data.get("routes", ())
        ),
        events={name: read_sample(name, item) for name, item in data.get("events", {}).items()},
        either=data.get("either", False),
        source=source,
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path.parent.name}/{path.name} is not YAML: {error}") from None
    return data or {}


def _check(data: Mapping[str, Any], source: Mapping[str, Any], path: Path) -> None:
    unknown = [key for key in data if key not in _TOP]
    for section, known in _KEYS.items():
        unknown += [f"{section}.{key}" for key in data.get(section, {}) if key not in known]
    for section, sheet in (("actions", ActionSheet), ("resources", ResourceSheet)):
        parts = {item.name for item in fields(sheet)}
        for name, said in data.get(section, {}).items():
            place = f"{section}.{name}"
            unknown += [place] if name not in source[section] else []
            unknown += [f"{place}.{key}" for key in said if key not in parts]
    if unknown:
        name = f"{path.parent.name}/{path.name}"
        raise InvalidInput(f"{name} says {', '.join(unknown)}, which is not known.")


def _tree(value: object) -> Tree | None:
    return None if value is None else Tree(value)


def _shape(data: Mapping[str, Any], status: int) -> Shape:
    return Shape(
        status=data.get("status", status),
        body=_tree(data.get("body")),
        headers={name.lower(): str(value) for name, value in data.get("headers", {}).items()},
        text=data.get("text"),
    )


def _resource(data: Mapping[str, Any]) -> ResourceSheet:
    return ResourceSheet(
        not_found=_shape(data["not_found"], 404) if "not_found" in data else None,
        singular=data.get("singular"),
        names=tuple(data.get("names", ("id",))),
        prefix=data.get("prefix", {}),
        taken=data.get("taken", {}),
        extend=data.get("extend", False),
        stamps=data.get("stamps", {}),
    )


def _action(data: Mapping[str, Any]) -> ActionSheet:
    return ActionSheet(
        kind=data.get("kind", "do" if "feed" in data else None),
        id_param=data.get("id_param", "none" if "feed" in data else None),
        echo=data.get("echo", {}),
        refuse=tuple(
            Refusal(Condition(item["when"]), _shape(item, 400)) for item in data.get("refuse", ())
        ),
        not_found=_shape(data["not_found"], 404) if "not_found" in data else None,
        upsert=data.get("upsert", False),
        also=tuple(data.get("also", ())),
        page=data.get("page", {}),
        match=data.get("match", {}),
        later=data.get("later", {}),
        feed=_feed(data["feed"]) if "feed" in data else None,
        soql=data.get("soql", False),
        mime=data.get("mime"),
    )


def _feed(data: Mapping[str, Any]) -> FeedSheet:
    return FeedSheet(
        of=frozenset(data.get("of", ())),
        since=data.get("since", ""),
        item=_tree(data.get("item")),
        answer=_tree(data.get("answer")),
    )


def _reference(data: Mapping[str, Any]) -> ReferenceSheet:
    pattern, accept = data.get("pattern"), data.get("accept")
    return ReferenceSheet(
        param=data["param"],
        resource=data["resource"],
        by=data.get("by", "name"),
        strip=data.get("strip", ""),
        pattern=re.compile(pattern) if pattern else None,
        accept=re.compile(accept) if accept else None,
    )
