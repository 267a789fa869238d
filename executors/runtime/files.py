"""Files of steps: uploads are streamed out of the file store, downloads into it.

A vendor that keeps its content elsewhere answers a download with a redirect to an address that
opens without the token (Microsoft Graph, Box, GitHub); that one is followed, without the token.
"""

from collections.abc import AsyncIterator, Mapping
from email.message import Message
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import orjson

from executors.core.request import Request
from schemas import files
from schemas.events import RequestStep
from schemas.provider import ActionSpec
from wire.calls import Answer, Calls
from wire.files import FileStore, Origin

REDIRECTS_MAX: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class StepFiles:
    """Moves files between vendors and the store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def known(
        self, command: RequestStep, action: ActionSpec, params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Give the params with what the store knows of the files that they name.

        Raises:
            InvalidInput: `no_such_file`; there is none of this id in the workspace and mode.
            DependencyDown: The database is away.
        """
        found: dict[str, Any] = {}
        for name, value in params.items():
            file_id = files.wanted(value)
            if action.aliases.get(name, name) in action.files and file_id is not None:
                stored = await self._store.find(command.workspace_id, command.mode, file_id)
                if stored is None:
                    raise files.no_such_file(file_id)
                found[name] = stored.told()
        return {**params, **found}

    async def send(
        self,
        calls: Calls,
        command: RequestStep,
        request: Request,
        url: str,
        headers: Mapping[str, str],
    ) -> Answer:
        """Send a request that carries files, or whose answer becomes one.

        Returns:
            The answer; of a download its body is `{"file": {…}}`.

        Raises:
            httpx.TransportError: As `Calls.send`.
            TooLarge: The answer is larger than a file may be, or the workspace's room is used up.
            DependencyDown: The database is away.
        """

        async def keep(told: Mapping[str, str], pieces: AsyncIterator[bytes]) -> bytes:
            name = name_of(told.get("content-disposition", "")) or request.download
            kind = files.clean_type(told.get("content-type"), name)
            origin = Origin(
                command.workspace_id, command.mode, command.execution_id, command.step_id
            )
            stored = await self._store.write(origin, name, kind, pieces)
            return orjson.dumps({files.FILE: stored.told()})

        content: bytes | AsyncIterator[bytes] | None = request.payload()[0]
        if content is None and request.upload is not None:
            content = self._body(command, request.upload)
            headers = {**headers, "content-length": str(request.upload.size)}
        taking = keep if request.download else None
        answer = await calls.send(request.method, url, headers, content, taking)
        for _ in range(REDIRECTS_MAX if request.download else 0):
            target = urljoin(url, answer.headers.get("location", ""))
            if answer.status not in _REDIRECTS or not _may_follow(url, target):
                break
            url = target
            answer = await calls.send("GET", url, {"accept": "*/*"}, None, keep)
        return answer

    async def _body(self, command: RequestStep, upload: files.Upload) -> AsyncIterator[bytes]:
        for piece in upload.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            async for chunk in self._store.read(command.workspace_id, command.mode, piece.file_id):
                yield chunk


def name_of(disposition: str) -> str:
    """Give the file name of a Content-Disposition header (RFC 6266), cleaned; empty: none."""
    if "filename" not in disposition.lower():
        return ""
    header = Message()
    header["content-disposition"] = disposition
    found = header.get_filename("")
    return files.clean_name(found) if found else ""


def _may_follow(url: str, target: str) -> bool:
    """Say whether a redirect keeps to HTTPS, or to the server that it came from (the sandbox)."""
    before, after = urlsplit(url), urlsplit(target)
    return after.scheme == "https" or (before.scheme, before.netloc) == (after.scheme, after.netloc)
