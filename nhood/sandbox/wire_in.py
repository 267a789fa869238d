"""A request as the sandbox got it, and an answer as it leaves; no more than it needs of HTTP."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

import orjson

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
_BRACKETS = re.compile(r"[^\[\]]+(\[[^\[\]]*\])+")


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
    _data: Any = field(default=None, repr=False, init=False)
    _read: bool = field(default=False, init=False)
    _query: dict[str, str] | None = field(default=None, init=False)
    _parts: "Mapping[str, SentFile] | None" = field(default=None, repr=False, init=False)

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON values
        """The body parsed: JSON, form, or parts that are no files; None where it is neither."""
        if not self._read:
            self._read = True
            self._data = self._parse()
        return self._data

    @property
    def files(self) -> "Mapping[str, SentFile]":
        """The files of a multipart body by name; else the whole body as the one without a name."""
        if self._parts is None:
            self._data, self._parts = self._multipart()
            self._read = self._read or self.is_multipart
        return self._parts

    @property
    def is_multipart(self) -> bool:
        """Whether the body has several parts."""
        return self.content_type.startswith("multipart/")

    def without_body(self) -> "Incoming":
        """Give the same request with a word about its body in the body's place."""
        short = replace(self, body=b"")
        short._data, short._read = f"{len(self.body)} bytes", True
        return short

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_form(self) -> bool:
        """Whether the body came as a form."""
        return self.content_type == FORM

    def query_data(self) -> Mapping[str, str]:
        """Give the query; of several with one name the last."""
        if self._query is None:
            pairs = parse_qsl(self.query, keep_blank_values=True) if self.query else ()
            self._query = dict(pairs)
        return self._query

    def query_nested(self) -> Mapping[str, Any]:
        """Give the query under its own names and, where they hold brackets, as they nest."""
        flat = self.query_data()
        nests = "%5B" in self.query or "[" in self.query
        return {**nested(flat.items()), **flat} if nests else flat

    def query_list(self, name: str) -> list[str]:
        """Give every value of the query under a name."""
        return [
            value for key, value in parse_qsl(self.query, keep_blank_values=True) if key == name
        ]

    def _parse(self) -> Any:  # noqa: ANN401 - JSON values
        if not self.body:
            return None
        if self.is_multipart:
            found, self._parts = self._multipart()
            return found
        if self.is_form:
            return nested(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def _multipart(self) -> "tuple[Any, dict[str, SentFile]]":
        if not self.is_multipart:
            kind = self.headers.get("content-type", "application/octet-stream")
            return self._data, {"": SentFile("file", kind, self.body)}
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode("latin-1")
        whole = BytesParser(policy=HTTP).parsebytes(head + self.body)
        data: dict[str, Any] = {}
        files: dict[str, SentFile] = {}
        for number, part in enumerate(whole.iter_parts()):
            content = part.get_payload(decode=True)
            content = content if isinstance(content, bytes) else b""
            name = part.get_param("name", header="content-disposition")
            # RFC 2387 gives parts no names: the first is the description, the second the file.
            name = str(name) if name is not None else ("metadata", "file")[min(number, 1)]
            filename = part.get_filename()
            if filename is not None or name == "file":
                files[name] = SentFile(filename or "file", str(part.get_content_type()), content)
            else:
                data[name] = _read_part(content, part.get_content_type())
        return data, files


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file as it was sent."""

    name: str
    content_type: str
    content: bytes


def _read_part(content: bytes, kind: str) -> Any:  # noqa: ANN401 - JSON
    text = content.decode("utf-8", "replace")
    if kind != "application/json" and text[:1] not in ("{", "["):
        return text
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return text


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Read form pairs, those in brackets as the lists and objects that they stand for."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if not _BRACKETS.fullmatch(name):
            found[name] = value
            continue
        first, *rest = (part.rstrip("]") for part in name.split("["))
        inside = found
        for step in (first, *rest[:-1]):
            kept = inside.get(step)
            inside[step] = kept if isinstance(kept, dict) else {}
            inside = inside[step]
        inside[rest[-1] or str(len(inside))] = value
    return {name: _listed(value) for name, value in found.items()}


def _listed(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if not isinstance(value, dict):
        return value
    inside = {name: _listed(item) for name, item in value.items()}
    return list(inside.values()) if all(name.isdigit() for name in inside) else inside


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
