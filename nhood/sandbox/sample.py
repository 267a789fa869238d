"""A webhook as a vendor sends it: the `events` of sandbox.yaml; pure.

    issues:
      headers: {x-github-event: issues, x-github-delivery: "${delivery}"}
      query: {source: github}
      body: {...}        JSON; or `form: {...}`, or `text: ...` with a content-type in `headers`

Templates read `account` (the account that the sandbox's consent opens, in the forms that vendors
use), `delivery` (a new id), `now` (RFC 3339, UTC, seconds), `epoch` and `epoch_ms` (since 1970),
`url` (where it is sent), `secret` (where a vendor repeats it in the body). The signature is put on
afterwards, from the provider file (`nhood.sandbox.signing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import orjson

from nhood.sandbox.accounts import ACCOUNT_DEFAULT, account_forms
from schemas.errors import InvalidInput
from schemas.events import rfc3339_seconds
from schemas.expression import Roots, Tree

_PARTS = frozenset({"headers", "query", "body", "form", "text"})
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class EventSample:
    """One event that a vendor sends, to be filled in."""

    headers: Tree
    query: Tree
    body: Tree | None
    form: Tree | None
    text: Tree | None

    def render(self, roots: Roots) -> "RenderedEvent":
        """Fill a sample in.

        Raises:
            InvalidInput: A template refers to what is not there.
        """
        headers = {name.lower(): str(value) for name, value in self.headers.render(roots).items()}
        query = urlencode(self.query.render(roots))
        if self.body is not None:
            content, kind = orjson.dumps(self.body.render(roots)), _JSON
        elif self.form is not None:
            content, kind = urlencode(self.form.render(roots)).encode(), _FORM
        else:
            text = "" if self.text is None else str(self.text.render(roots))
            content, kind = text.encode(), "text/plain"
        return RenderedEvent({"content-type": kind, **headers}, query, content)


@dataclass(frozen=True, slots=True)
class RenderedEvent:
    """A webhook without its signature; names of headers in lower case."""

    headers: Mapping[str, str]
    query: str
    content: bytes


def roots_of(slug: str, url: str, secret: str, delivery: str, at: datetime) -> dict[str, Any]:
    """Give what samples read.

    Args:
        slug: The provider.
        url: Where it is sent.
        secret: What vendor and receiver share.
        delivery: Names this delivery.
        at: UTC.
    """
    return {
        "account": account_forms(slug, ACCOUNT_DEFAULT),
        "delivery": delivery,
        "now": rfc3339_seconds(at),
        "epoch": int(at.timestamp()),
        "epoch_ms": int(at.timestamp() * 1000),
        "url": url,
        "secret": secret,
    }


def read_sample(name: str, data: Mapping[str, Any]) -> EventSample:
    """Read one event of sandbox.yaml.

    Raises:
        InvalidInput: It says what is not known, or more than one of body, form and text.
    """
    unknown = sorted(set(data) - _PARTS)
    if unknown:
        raise InvalidInput(f"events.{name} says {', '.join(unknown)}, which is not known.")
    if len({"body", "form", "text"} & set(data)) > 1:
        raise InvalidInput(f"events.{name} has one of body, form and text, not several.")
    parts = {part: Tree(data[part]) for part in ("body", "form", "text") if part in data}
    return EventSample(
        headers=Tree(data.get("headers", {})),
        query=Tree(data.get("query", {})),
        body=parts.get("body"),
        form=parts.get("form"),
        text=parts.get("text"),
    )
