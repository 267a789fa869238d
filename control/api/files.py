"""Files that steps take and make: put in, listed, fetched, dropped. Content is streamed."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from control.api.shapes import Member, PageDep, PortsDep, failures
from control.core.cursor import read_cursor, write_cursor
from control.ports import Ports
from schemas.access import Caller, needs
from schemas.errors import InvalidInput, NotFound, TooLarge
from schemas.files import NAME_MAX
from wire.files import FileStore, Listed, Origin, file_store

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
# Whatever somebody put in, no browser is to take it for a page of ours.
_SAFE: Final = {"content-security-policy": "sandbox", "x-content-type-options": "nosniff"}


class FileAnswer(BaseModel):
    """A file. `file_id`, or all of it, is what a step's file param takes."""

    file_id: str = Field(examples=["fil_01jd3k5m7n9p1q3r5s7t9v1w3x"])
    name: str
    content_type: str
    size: int = Field(description="Bytes.")
    sha256: str
    created_at: datetime
    expires_at: datetime
    execution_id: str | None = Field(description="Whose step made it.")
    step_id: str | None


class FilePage(BaseModel):
    """A page of files, newest first."""

    items: list[FileAnswer]
    next_cursor: str | None


FileId = Annotated[str, Path(max_length=64, examples=["fil_01jd3k5m7n9p1q3r5s7t9v1w3x"])]
FileName = Annotated[str, Query(min_length=1, max_length=NAME_MAX, examples=["report.pdf"])]


async def put_file(name: FileName, request: Request, caller: Member, ports: PortsDep) -> FileAnswer:
    """Keep a file: the request's body is its content, Content-Type its type."""
    store = _store(ports)
    _check_length(request, ports)
    origin = Origin(caller.workspace_id, caller.mode)
    kind = request.headers.get("content-type", "")
    try:
        stored = await store.write(origin, name, kind, request.stream())
    except ClientDisconnect:
        raise InvalidInput("The body broke off.", code="body_broken_off") from None
    return _answer(await _find(store, caller, stored.file_id))


async def list_files(page: PageDep, caller: Member, ports: PortsDep) -> FilePage:
    """List files of the caller's mode."""
    scope = [caller.workspace_id, caller.mode]
    before = None
    if page.cursor:
        micros, file_id = read_cursor("files", scope, page.cursor)
        before = (_EPOCH + micros * _US, file_id)
    found = await _store(ports).page(caller.workspace_id, caller.mode, before, page.limit + 1)
    shown = found[: page.limit]
    last = None
    if len(found) > page.limit:
        last = ((shown[-1].created_at - _EPOCH) // _US, shown[-1].file.file_id)
    return FilePage(
        items=[_answer(one) for one in shown],
        next_cursor=write_cursor("files", scope, last) if last else None,
    )


async def get_file(file_id: FileId, caller: Member, ports: PortsDep) -> FileAnswer:
    """Tell what is known of a file."""
    return _answer(await _find(_store(ports), caller, file_id))


async def get_content(file_id: FileId, caller: Member, ports: PortsDep) -> Response:
    """Give a file's content."""
    store = _store(ports)
    file = (await _find(store, caller, file_id)).file

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in store.read(caller.workspace_id, caller.mode, file_id):
            yield piece

    headers = {
        "content-length": str(file.size),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.name)}",
        "etag": f'"{file.sha256}"',
        **_SAFE,
    }
    return StreamingResponse(pieces(), media_type=file.content_type, headers=headers)


async def delete_file(file_id: FileId, caller: Member, ports: PortsDep) -> None:
    """Drop a file; steps that still name it will fail."""
    store = _store(ports)
    if not await store.delete(caller.workspace_id, caller.mode, file_id):
        raise _missing(file_id)


def _store(ports: Ports) -> FileStore:
    return file_store(ports.pool, ports.settings)


def _check_length(request: Request, ports: Ports) -> None:
    declared = request.headers.get("content-length", "")
    bound = ports.settings.file_bytes_max
    if declared.isascii() and declared.isdigit() and int(declared) > bound:
        raise TooLarge(f"The file is larger than {bound} bytes.", code="file_too_large")


async def _find(store: FileStore, caller: Caller, file_id: str) -> Listed:
    found = await store.get(caller.workspace_id, caller.mode, file_id)
    if found is None:
        raise _missing(file_id)
    return found


def _missing(file_id: str) -> NotFound:
    return NotFound(
        f"There is no file {file_id!r} of this mode; files are dropped after some days.",
        code="file_not_found",
    )


def _answer(found: Listed) -> FileAnswer:
    return FileAnswer(
        **found.file.told(),
        created_at=found.created_at,
        expires_at=found.expires_at,
        execution_id=found.execution_id,
        step_id=found.step_id,
    )


def add_routes(router: APIRouter) -> None:
    """Add this noun's routes."""
    many = "/api/v1/workspaces/{workspace_id}/files"
    one = f"{many}/{{file_id}}"
    body = {
        "required": True,
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    }
    read, write = needs("files:read"), needs("files:write")
    routes: tuple[tuple[str, Any, str, int, dict[str, Any], str], ...] = (
        (many, put_file, "POST", 201, write | {"requestBody": body}, "Put a file in"),
        (many, list_files, "GET", 200, read, "List files"),
        (one, get_file, "GET", 200, read, "Get a file's description"),
        (f"{one}/content", get_content, "GET", 200, read, "Get a file's content"),
        (one, delete_file, "DELETE", 204, write, "Drop a file"),
    )
    for path, handler, method, status, extra, summary in routes:
        router.add_api_route(
            path,
            handler,
            methods=[method],
            status_code=status,
            tags=["files"],
            summary=summary,
            openapi_extra=extra,
            responses=failures(401, 403, 404, 413, 422, 503),
        )
