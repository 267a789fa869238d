"""Speaks to token endpoints; every way in which they fail comes back as a value."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import httpx
import orjson

from schemas.provider_auth import AuthSpec
from token_vault.core.grants import Granted, Refused, TokenRequest, read_token
from wire.http import map_http_failure
from wire.redact import without

# A token endpoint that takes longer is down as far as we are concerned.
TIMEOUT_S: Final = 15.0
# Fields of a token request that are no secrets; every other one is taken for one.
_OPEN: Final = frozenset(
    {"grant_type", "client_id", "redirect_uri", "scope", "resource", "audience"}
)


async def ask(
    client: httpx.AsyncClient,
    url: str,
    auth: AuthSpec,
    request: TokenRequest,
    clock: Callable[[], datetime],
) -> Granted | Refused:
    """Post a token request and read the answer; never raises for what the vendor does."""
    try:
        response = await client.post(
            url, content=request.content, headers=dict(request.headers), timeout=TIMEOUT_S
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sent, code, message = map_http_failure(error)
        return Refused("unavailable", code, message, sent == "may_have_arrived")
    headers = {name.lower(): value for name, value in response.headers.items()}
    found = read_token(auth, response.status_code, headers, json_of(response), clock())
    if isinstance(found, Refused):  # it may repeat what it was asked with
        told = _secrets_of(request)
        found = replace(found, code=without(found.code, told), message=without(found.message, told))
    return found


def _secrets_of(request: TokenRequest) -> list[str]:
    fields: dict[str, Any] = dict(parse_qsl(request.content.decode(errors="replace")))
    if request.content[:1] == b"{":
        fields = orjson.loads(request.content)
    found = [value for name, value in fields.items() if name not in _OPEN]
    found += [value.partition(" ")[2] or value for value in request.headers.values()]
    return [value for value in found if isinstance(value, str)]


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401 - JSON values
    """Give the parsed body; None where it is not JSON."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
