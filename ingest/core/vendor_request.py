"""A vendor's webhook request as its provider file's templates see it; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import orjson

from schemas.errors import InvalidInput

_FORM = "application/x-www-form-urlencoded"
_FIELDS_MAX = 1_000


@dataclass(frozen=True)
class VendorRequest:
    """A request as it came.

    Attributes:
        method: In capitals.
        url: The address as it was given to the vendor, with the query that came.
        query: The query as text.
        headers: Names in lower case.
    """

    method: str
    url: str
    query: str
    headers: Mapping[str, str]
    content: bytes

    @cached_property
    def raw(self) -> str:
        """The body as text from which `to_bytes` makes the very same bytes again."""
        return self.content.decode("utf-8", "surrogateescape")

    @cached_property
    def form(self) -> tuple[tuple[str, str], ...]:
        """The fields of a form, in their order; empty where the body is none."""
        if self._media_type != _FORM:
            return ()
        try:
            return tuple(parse_qsl(self.raw, keep_blank_values=True, max_num_fields=_FIELDS_MAX))
        except ValueError as error:
            raise InvalidInput(
                f"The form has more than {_FIELDS_MAX} fields.", code="too_long"
            ) from error

    @cached_property
    def body(self) -> Any:  # noqa: ANN401 - JSON values
        """The body as JSON, a form as an object, anything else as text; None where it is empty.

        Raises:
            InvalidInput: `malformed_json`: the content type says JSON and it is none.
        """
        if not self.content:
            return None
        if self._media_type == _FORM:
            return dict(self.form)
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as error:
            if self._media_type.endswith("json"):
                raise InvalidInput(
                    f"The body is not JSON, though its content type says so: {error}.",
                    code="malformed_json",
                ) from error
        return self.raw

    @property
    def _media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def roots(self) -> dict[str, Any]:
        """Give what templates and conditions may read."""
        return {
            "method": self.method,
            "url": self.url,
            "query": dict(parse_qsl(self.query, keep_blank_values=True)),
            "headers": self.headers,
            "raw": self.raw,
            "form": [list(pair) for pair in self.form],
            "body": self.body,
        }


def to_bytes(text: str) -> bytes:
    """Turn a rendered text into bytes; what came from `raw` becomes what it was."""
    return text.encode("utf-8", "surrogateescape")
