"""What is sent to a vendor and what comes back, and how a request is made from an action; pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson

from executors.core.upload import upload
from schemas import files
from schemas.errors import InvalidInput
from schemas.expression import Template, Tree
from schemas.provider import ActionSpec, ProviderSpec
from schemas.segments import path_segment
from schemas.transforms import as_text

JSON_TYPE: Final = "application/json; charset=utf-8"
FORM_TYPE: Final = "application/x-www-form-urlencoded"

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, without the credential: the driver adds that as the provider declares.

    Attributes:
        url: Absolute and encoded, without the query.
        json: The JSON body, None for none; at most one of json, form, content and upload is there.
        upload: A body out of bytes and stored files; the driver streams it.
        download: What to call the answer's body, which is kept as a file; empty: it is read.
        read_only: It changes nothing at the vendor.
        with_token: Whether the driver adds the token header (an upload address may want none).
        proof: Which of the auth's `proofs` stands in for the token header; empty: none.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Pairs = ()
    json: Any = None
    form: Pairs | None = None
    content: bytes | None = None
    upload: files.Upload | None = None
    download: str = ""
    read_only: bool = False
    with_token: bool = True
    proof: str = ""

    @property
    def full_url(self) -> str:
        """The address with its query."""
        if not self.query:
            return self.url
        joint = "&" if "?" in self.url else "?"
        return f"{self.url}{joint}{urlencode(self.query)}"

    @property
    def origin(self) -> str:
        """Scheme and host, such as `https://slack.com`."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def payload(self) -> tuple[bytes | None, str | None]:
        """Give the body's bytes and content type (None and None where there is no body).

        Of an upload with a stored file no bytes: they are in the file store.
        """
        if self.upload is not None:
            told = "content-type" in (name.lower() for name in self.headers)
            return self.upload.content(), None if told else self.upload.content_type
        if self.json is not None:
            return orjson.dumps(self.json), JSON_TYPE
        if self.form is not None:
            return urlencode(self.form).encode(), FORM_TYPE
        if self.content is not None:
            return (
                self.content,
                None if "content-type" in self.headers else "application/octet-stream",
            )
        return None, None


class _Unparsed:
    __slots__ = ()


_UNPARSED: Final = _Unparsed()


class Response:
    """One HTTP answer.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        content: The body's bytes.
        received_at_s: When it came: UTC, seconds since 1970; times in headers count from it.
    """

    __slots__ = ("_body", "content", "headers", "received_at_s", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], content: bytes, received_at_s: float = 0.0
    ) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.content = content
        self.received_at_s = received_at_s
        self._body: Any = _UNPARSED

    @property
    def body(self) -> Any:  # noqa: ANN401 - whatever a vendor sends
        """The body: parsed where it is JSON, else its text; None where it is empty."""
        if self._body is _UNPARSED:
            self._body = self._parse()
        return self._body

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON (or empty)."""
        return not self.content or not isinstance(self.body, str) or self.content[:1] == b'"'

    def with_body(self, body: Any) -> "Response":  # noqa: ANN401 - JSON
        """Give the same answer with another body."""
        other = Response(self.status, self.headers, self.content, self.received_at_s)
        other._body = body
        return other

    def _parse(self) -> Any:  # noqa: ANN401 - whatever a vendor sends
        if not self.content.strip():
            return None
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:
            return self.content.decode("utf-8", "replace")


def render(
    spec: ProviderSpec,
    action: ActionSpec,
    params: Mapping[str, Any],
    connection: Mapping[str, Any],
    effect_key: str,
) -> Request:
    """Make the request of an action.

    Args:
        spec: The provider.
        action: An action of it that takes one request.
        params: Rendered and checked params (`ActionSpec.check_params`).
        connection: The account's variables; declared defaults are added here.
        effect_key: The key of this effect, for vendors that take an idempotency key.

    Raises:
        InvalidInput: A variable of the account is missing or wrong (`bad_connection`), or a param
            cannot stand in the path (`invalid_params`).
    """
    request = action.request
    if request is None:
        raise InvalidInput(
            f"{spec.slug}.{action.id} takes several requests", code="not_one_request"
        )
    account = spec.connection(connection)
    given = action.prepare(params)
    if action.files:
        given = {n: files.known(v) if n in action.files else v for n, v in given.items()}
    roots = {"params": given, "connection": account, "effect_key": effect_key}
    headers = {name: value.text(roots) for name, value in spec.api.headers.items()}
    for name, value in request.headers.items():
        headers[name] = value.text(roots)
    for name, tree in request.json_headers.items():
        headers[name] = json.dumps(tree.render(roots), separators=(",", ":"))  # ASCII only
    body = request.json.render(roots) if request.json is not None else None
    if request.passes:
        declared = action.params["properties"]
        extra = {k: v for k, v in given.items() if k not in declared and k.endswith(request.passes)}
        body = {**(body or {}), **extra}
    if action.idempotency is not None:
        place, name = action.idempotency
        if place == "header":
            headers[name] = effect_key
        else:
            body = {**(body or {}), name: effect_key}
    return Request(
        method=request.method,
        url=_base(request.base_url or spec.api.base_url, spec, account, roots)
        + request.path.text_with(roots, path_segment),
        headers=headers,
        query=_query(request.query, roots, spec.api.nesting),
        json=body,
        form=_form(request.form, roots, spec.api.nesting),
        upload=upload(request, given, roots, effect_key),
        download=_name(request.download, roots),
        read_only=action.read_only,
        proof=request.proof,
    )


def _name(template: Template | None, roots: Mapping[str, Any]) -> str:
    return "" if template is None else files.clean_name(template.text(roots))


def _base(
    base_url: Template, spec: ProviderSpec, account: Mapping[str, Any], roots: Mapping[str, Any]
) -> str:
    for path in base_url.paths:
        name = str(path.steps[0])
        variable = spec.auth.variables[name]
        value = account.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidInput(
                f"The connection does not know its {name}; please reconnect the account.",
                code="bad_connection",
            )
        if variable.source == "customer" and not variable.accepts(value):
            raise InvalidInput(f"{value!r} is not a {name}.", code="bad_connection")
    return base_url.text(roots).rstrip("/")


def _query(tree: Tree | None, roots: Mapping[str, Any], nesting: str) -> Pairs:
    """Write query values as text; a list repeats its name, an object becomes JSON text."""
    if tree is None:
        return ()
    if nesting == "brackets":
        return tuple(bracketed(tree.render(roots)))
    pairs: list[tuple[str, str]] = []
    for name, value in tree.render(roots).items():
        if isinstance(value, list):
            pairs.extend((name, as_text(item)) for item in value)
        elif value is not None:
            pairs.append((name, as_text(value)))
    return tuple(pairs)


def _form(tree: Tree | None, roots: Mapping[str, Any], nesting: str) -> Pairs | None:
    """Write form values as text; lists and objects become JSON text."""
    if tree is None:
        return None
    values = tree.render(roots)
    if nesting == "brackets":
        return tuple(bracketed(values))
    return tuple((name, as_text(value)) for name, value in values.items() if value is not None)


def bracketed(value: Any, name: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - JSON
    """Write nested values as form pairs: `{"items": [{"price": "p"}]}` as `items[0][price]=p`.

    Null is left out; empty lists and objects cannot be said in a form.
    """
    parts: Iterable[tuple[object, Any]]
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        if value is not None:
            yield name, as_text(value)
        return
    for key, item in parts:
        yield from bracketed(item, f"{name}[{key}]" if name else str(key))
