"""Errors on their way out over HTTP: every one becomes an RFC 9457 problem.

    {type, title, status, code, detail, instance, problems: [{place, message, mend, code}]}

`install` covers our own errors, FastAPI's validation (unknown fields get a did-you-mean), unknown
routes and methods, and whatever nobody foresaw: that one is logged, and its answer says nothing
but the number under which the log has it. Source: https://www.rfc-editor.org/rfc/rfc9457
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_args

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import (
    DependencyDown,
    NeighbourhoodError,
    Problem,
    RateLimited,
    SecretUnavailable,
    Unauthenticated,
)
from wire.clock import mint

MEDIA_TYPE = "application/problem+json"
# How soon to come back when a server of ours is away: a broker's or database's restart is seconds.
RETRY_AFTER_DOWN_S = 2
MAX_PROBLEMS = 100
_SERVER_ERROR = 500
_CODES = {404: "route_not_found", 405: "method_not_allowed", 413: "too_large", 415: "media_type"}
_log = structlog.get_logger("http")


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
) -> Response:
    """Build the answer.

    Args:
        status: HTTP status.
        code: Stable, snake_case: what programs look at.
        detail: One sentence to whoever can mend it.
        problems: What is wrong, place by place; the first `MAX_PROBLEMS` are told.
        headers: Further response headers.
        instance: Id of this very failure, `rq_…`; made up where None.
    """
    number = instance or mint("rq")
    body: dict[str, object] = {
        "type": f"urn:nhood:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": f"urn:nhood:request:{number}",
    }
    if problems:
        body["problems"] = [
            {"place": p.place, "message": p.message, "mend": p.mend, "code": p.code}
            for p in problems[:MAX_PROBLEMS]
        ]
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def answer(error: NeighbourhoodError) -> Response:
    """Turn an error of ours into its answer."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = f'Bearer realm="nhood", error="{error.code}"'
    elif isinstance(error, RateLimited):
        headers |= {**error.headers, "Retry-After": str(error.retry_after_s)}
    elif isinstance(error, DependencyDown | SecretUnavailable):
        headers["Retry-After"] = str(RETRY_AFTER_DOWN_S)
    number = mint("rq")
    if error.status >= _SERVER_ERROR:
        _log.warning(
            "request.failed",
            request=number,
            code=error.code,
            reason=error.public,
            detail=error.detail,
        )
    problems = error.problems
    return problem(
        error.status,
        error.code,
        error.public,
        problems=problems,
        headers=headers,
        instance=number,
    )


def install(app: FastAPI) -> None:
    """Make the app answer every error as a problem."""
    app.add_exception_handler(NeighbourhoodError, _ours)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


async def _ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NeighbourhoodError)  # noqa: S101 - for the type checker
    return answer(error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    code = _CODES.get(error.status_code, "http_error")
    detail = str(error.detail)
    if code == "route_not_found":
        detail = f"There is nothing at {request.url.path[:200]!r}; /docs lists what there is."
    elif code == "method_not_allowed":
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.method} is not possible here; {allowed} is."
    return problem(error.status_code, code, detail, headers=error.headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    number = mint("rq")
    _log.error("request.crashed", request=number, path=request.url.path, exc_info=error)
    return problem(
        _SERVER_ERROR,
        "internal",
        "Something went wrong on our side; the number under `instance` finds it in the log.",
        instance=number,
    )


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    found = list(error.errors())
    broken = next((item for item in found if item["type"] == "json_invalid"), None)
    if broken is not None:
        reason = broken.get("ctx", {}).get("error", "it cannot be parsed")
        at = broken["loc"][-1]
        return problem(400, "malformed_json", f"The body is not JSON: {reason}, character {at}.")
    model = _body_model(request)
    problems = [_problem_of(item, model) for item in found]
    first = problems[0]
    more = f" ({len(problems) - 1} more below)" if len(problems) > 1 else ""
    detail = f"{first.place}: {first.message}.{more}"
    return problem(422, "invalid_input", detail, problems=problems)


def _problem_of(item: Mapping[str, Any], model: type[BaseModel] | None) -> Problem:
    where, *path = item["loc"]
    place = place_of(path) if where == "body" else f"{where}.{place_of(path)}"
    kind = item["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return Problem(
            place, "is not a known field", suggest(str(path[-1]), known), "unknown_field"
        )
    if kind == "missing":
        return Problem(place or "body", "is missing", "Add it.", "missing")
    message = str(item["msg"]).removeprefix("Value error, ")
    return Problem(place or "body", message[:1].lower() + message[1:], "", _code_of(kind))


def _code_of(kind: str) -> str:
    return "invalid" if kind == "value_error" else kind


def place_of(path: Iterable[str | int]) -> str:
    """Write a path as people do: `("steps", 2, "config")` gives `steps[2].config`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(word: str, known: Sequence[str]) -> str:
    """Say how to mend a name that is not known."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known here: {', '.join(known)}." if known else "Remove it."


def _body_model(request: Request) -> type[BaseModel] | None:
    route = request.scope.get("route")
    field = route.body_field if isinstance(route, APIRoute) else None
    return _model_in(field.field_info.annotation) if field is not None else None


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Find the model in `Model`, `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _fields_at(model: type[BaseModel] | None, path: Sequence[str | int]) -> list[str]:
    for part in path:
        if model is None or isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field is not None else None
    return [f.alias or name for name, f in model.model_fields.items()] if model else []
