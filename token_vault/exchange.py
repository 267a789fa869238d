"""Speaks to token endpoints; every way in which they fail comes back as a value."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import httpx
import orjson

from schemas.provider_auth import AuthSpec
from token_vault.core.grants import Granted, Refused, TokenRequest, read_token
from wire.http import map_http_failure

# A token endpoint that takes longer is down as far as we are concerned.
TIMEOUT_S: Final = 15.0


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
        _, code, message = map_http_failure(error)
        return Refused("unavailable", code, message)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return read_token(auth, response.status_code, headers, json_of(response), clock())


def json_of(response: httpx.Response) -> Any:  # noqa: ANN401 - JSON values
    """Give the parsed body; None where it is not JSON."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
