"""A request as the sandbox got it, and an answer as it leaves; no more than it needs of HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"


@dataclass(slots=True)
class Incoming:
    """A request.

    Attributes:
        path: Below the provider's slug, percent-encoding kept.
        headers: Names in lower case; of several with one name the last.
    """

    slug: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    _data: Any = field(default=None, repr=False)
    _read: bool = False
    _query: dict[str, str] | None = None

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON values
        """The body parsed by its content type: JSON or form; None where it is neither."""
        if not self._read:
            self._read = True
            self._data = self._parse()
        return self._data

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_form(self) -> bool:
        """Whether the body came as a form."""
        return self.content_type == "application/x-www-form-urlencoded"

    def query_data(self) -> Mapping[str, str]:
        """Give the query; of several with one name the last."""
        if self._query is None:
            pairs = parse_qsl(self.query, keep_blank_values=True) if self.query else ()
            self._query = dict(pairs)
        return self._query

    def query_list(self, name: str) -> list[str]:
        """Give every value of the query under a name."""
        return [
            value for key, value in parse_qsl(self.query, keep_blank_values=True) if key == name
        ]

    def _parse(self) -> Any:  # noqa: ANN401 - JSON values
        if not self.body:
            return None
        if self.is_form:
            return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, its body as bytes."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def json_answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with JSON; None gives an empty body."""
    return Answer(status, b"" if body is None else orjson.dumps(body), headers or {})
