"""Files between steps on a real PostgreSQL and real sockets: kept, streamed, bounded, scoped."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest
from aiohttp import web

from executors.core.request import Request
from executors.runtime.files import StepFiles, name_of
from schemas.errors import InvalidInput, TooLarge
from schemas.events import Payload, RequestStep
from schemas.files import Upload
from schemas.provider import load_catalogue
from wire.calls import AiohttpCalls
from wire.clock import mint
from wire.database import open_pool
from wire.files import PIECE_BYTES, FileStore, Origin, forget_old

CONTENT = os.urandom(3 * PIECE_BYTES + 17)
SLACK = load_catalogue().get("slack")


async def pieces(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@dataclass
class Site:
    """A store with two workspaces."""

    pool: object
    store: FileStore
    mine: Origin
    other: Origin

    async def sql(self, query, *values):
        async with self.pool.connection() as on:
            cursor = await on.execute(query, values)
            return await cursor.fetchall() if cursor.description else []


@pytest.fixture
async def site(database):
    pool = await open_pool(database, max_size=4)
    ids = [mint("ws") for _ in range(2)]
    async with pool.connection() as on:
        for workspace in ids:
            sql = "INSERT INTO workspaces (id, name, email, plan) VALUES (%s, 'A', 'a@b.c', 'free')"
            await on.execute(sql, (workspace,))
    store = FileStore(pool, file_max=2_000_000, total_max=3_000_000, days=14)
    yield Site(pool, store, Origin(ids[0], "test"), Origin(ids[1], "test"))
    await pool.close()


async def whole(site: Site, file_id: str) -> bytes:
    read = site.store.read(site.mine.workspace_id, site.mine.mode, file_id)
    return b"".join([piece async for piece in read])


async def test_file_comes_back_as_it_was(site):
    stored = await site.store.write(site.mine, "../a/b.pdf", "application/pdf", pieces(CONTENT))
    assert (stored.name, stored.size) == ("_a_b.pdf", len(CONTENT))
    assert stored.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert await whole(site, stored.file_id) == CONTENT
    empty = await site.store.write(site.mine, "empty", "", pieces(b""))
    assert (empty.size, empty.content_type) == (0, "application/octet-stream")
    assert await whole(site, empty.file_id) == b""


async def test_file_is_seen_in_its_workspace_and_mode_only(site):
    stored = await site.store.write(site.mine, "a", "text/plain", pieces(b"mine"))
    for place in ((site.other.workspace_id, "test"), (site.mine.workspace_id, "live")):
        assert await site.store.find(*place, stored.file_id) is None
        assert [piece async for piece in site.store.read(*place, stored.file_id)] == []
        assert await site.store.page(*place, None, 10) == []
        assert await site.store.delete(*place, stored.file_id) is False
    assert await whole(site, stored.file_id) == b"mine"


async def test_bounds_hold_and_leave_nothing_behind(site):
    with pytest.raises(TooLarge) as caught:
        await site.store.write(site.mine, "a", "", pieces(b"x" * 2_000_001))
    assert caught.value.code == "file_too_large"
    await site.store.write(site.mine, "a", "", pieces(b"x" * 1_900_000))
    with pytest.raises(TooLarge) as caught:
        await site.store.write(site.mine, "b", "", pieces(b"x" * 1_900_000))
    assert caught.value.code == "files_full"
    await site.store.write(site.other, "c", "", pieces(b"x" * 1_900_000))
    assert await site.sql(
        "SELECT count(*) FROM files WHERE workspace_id = %s", site.mine.workspace_id
    ) == [(1,)]


async def test_old_and_unfinished_files_are_dropped_with_their_content(site):
    old = await site.store.write(site.mine, "old", "", pieces(CONTENT))
    await site.sql("UPDATE files SET expires_at = now() WHERE id = %s", old.file_id)
    half = await site.store.write(site.mine, "half", "", pieces(b"x"))
    await site.sql(
        "UPDATE files SET sha256 = NULL, created_at = now() - interval '2 h' WHERE id = %s",
        half.file_id,
    )
    young = await site.store.write(site.mine, "young", "", pieces(b"y"))
    assert await site.store.find(site.mine.workspace_id, "test", old.file_id) is None
    assert await site.store.find(site.mine.workspace_id, "test", half.file_id) is None
    assert await forget_old(site.pool) == 2
    left = await site.sql(
        "SELECT DISTINCT file_id FROM file_pieces WHERE file_id = ANY(%s)",
        [old.file_id, half.file_id, young.file_id],
    )
    assert left == [(young.file_id,)]


def command(origin: Origin) -> RequestStep:
    return RequestStep(
        workspace_id=origin.workspace_id,
        execution_id=mint("ex"),
        workflow_id="wf_1",
        version=1,
        step_id="get",
        loop_index=0,
        effect_key="k",
        provider="slack",
        action="upload_file",
        params=Payload(b"{}"),
        mode=origin.mode,
        user=None,
        connection_id=None,
        order_key=None,
        max_attempts=1,
        retry_delay_ms=0,
        retry_max_delay_ms=0,
        timeout_ms=10_000,
        on_unknown="fail",
        state=Payload(b""),
        requested_at_us=0,
    )


@asynccontextmanager
async def vendor() -> AsyncIterator[tuple[str, list[dict]]]:
    """A server that reads uploads by itself, gives them back and redirects."""
    seen: list[dict] = []

    async def take(request: web.Request) -> web.Response:
        note = {"length": request.headers.get("content-length"), "headers": request.headers.copy()}
        if request.content_type.startswith("multipart/"):
            async for part in await request.multipart():
                note[part.name] = (part.filename, await part.read())
        else:
            note["body"] = await request.read()
        seen.append(note)
        return web.json_response({"ok": True})

    async def give(_request: web.Request) -> web.Response:
        told = {"content-disposition": "attachment; filename*=UTF-8''gr%C3%BCn.bin"}
        return web.Response(body=CONTENT, content_type="application/pdf", headers=told)

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append({"headers": request.headers.copy()})
        raise web.HTTPFound("/give")

    async def away(_request: web.Request) -> web.Response:
        raise web.HTTPFound("http://example.org/give")

    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"error": "no"}, status=404)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/take", take)
    for path, handler in (("/give", give), ("/go", elsewhere), ("/away", away), ("/no", refuse)):
        app.router.add_get(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    port = server._server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", seen
    await runner.cleanup()


def anywhere(_host: str, _port: int) -> bool:
    return True


async def test_stored_file_is_streamed_with_its_length(site):
    stored = await site.store.write(site.mine, "a.pdf", "application/pdf", pieces(CONTENT))
    head, tail = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n', b"\r\n--x--\r\n"
    bodies = [
        Upload("application/pdf", (stored,)),
        Upload("multipart/form-data; boundary=x", (head, stored, tail)),
    ]
    async with vendor() as (url, seen), AiohttpCalls(anywhere) as calls:
        for upload in bodies:
            request = Request("PUT", f"{url}/take", upload=upload)
            headers = {"content-type": upload.content_type}
            answer = await StepFiles(site.store).send(
                calls, command(site.mine), request, request.url, headers
            )
            assert answer.status == 200
    assert seen[0]["body"] == CONTENT
    assert seen[0]["length"] == str(len(CONTENT))
    assert seen[1]["file"] == (None, CONTENT)
    assert all("chunked" not in note["headers"].get("Transfer-Encoding", "") for note in seen)


async def test_download_is_kept_and_told_and_a_redirect_gets_no_token(site):
    step = command(site.mine)
    async with vendor() as (url, seen), AiohttpCalls(anywhere) as calls:
        request = Request("GET", f"{url}/go", download="fallback.bin", read_only=True)
        headers = {"authorization": "Bearer secret"}
        answer = await StepFiles(site.store).send(calls, step, request, request.url, headers)
    told = orjson.loads(answer.content)["file"]
    assert (told["name"], told["content_type"]) == ("grün.bin", "application/pdf")
    assert await whole(site, told["file_id"]) == CONTENT
    assert seen[0]["headers"]["authorization"] == "Bearer secret"
    listed = await site.store.get(site.mine.workspace_id, "test", told["file_id"])
    assert (listed.execution_id, listed.step_id) == (step.execution_id, "get")
    # What it gave goes into the next step as it is.
    params = await StepFiles(site.store).known(
        step, SLACK.action("upload_file"), {"file": {"file_id": told["file_id"]}, "channel": "C"}
    )
    assert params == {"file": told, "channel": "C"}


@pytest.mark.parametrize(("path", "status"), [("/no", 404), ("/away", 302)])
async def test_failure_and_redirect_to_plain_http_are_answers(site, path, status):
    before = len(await site.store.page(site.mine.workspace_id, "test", None, 100))
    async with vendor() as (url, _), AiohttpCalls(anywhere) as calls:
        request = Request("GET", url + path, download="x", read_only=True)
        answer = await StepFiles(site.store).send(
            calls, command(site.mine), request, request.url, {}
        )
    assert answer.status == status
    assert len(await site.store.page(site.mine.workspace_id, "test", None, 100)) == before


async def test_file_of_another_workspace_is_no_file(site):
    stored = await site.store.write(site.other, "a", "", pieces(b"theirs"))
    for value in (stored.file_id, stored.told()):
        with pytest.raises(InvalidInput) as caught:
            await StepFiles(site.store).known(
                command(site.mine), SLACK.action("upload_file"), {"file": value}
            )
        assert caught.value.code == "no_such_file"


async def test_writing_that_is_cancelled_leaves_nothing(site):
    reached = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield CONTENT
        reached.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(site.store.write(site.mine, "a", "", slow()))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    rows = await site.sql(
        "SELECT count(*) FROM files WHERE workspace_id = %s", site.mine.workspace_id
    )
    assert rows == [(0,)]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=a.txt", "a.txt"),
        ('attachment; filename="../../etc/passwd"', "_.._etc_passwd"),
        ("attachment", ""),
        ("", ""),
    ],
)
def test_name_in_a_header(header, name):
    assert name_of(header) == name
