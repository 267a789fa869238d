"""A credential that stands in the address: it reaches the vendor and nothing that is kept."""

import httpx
import orjson
import pytest
import structlog
from aiohttp import ClientConnectionError
from structlog.testing import LogCapture

from executors.runtime.driver import Driver
from schemas.provider import load_catalogue
from schemas.provider_auth import IN_URL
from schemas.settings import Secret, Settings
from tests.unit.executors.test_driver import FakeTokens, ScriptedCalls, command
from token_vault.core.headers import Proof
from token_vault.tokens import Credential
from wire.http import translate

TOKEN = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"
TELEGRAM = load_catalogue().get("telegram")


class BotTokens(FakeTokens):
    """A vault that holds a bot's token."""

    async def resolve(self, workspace, mode, provider, user, connection_id=None) -> Credential:
        proof = Proof(IN_URL, Secret(TOKEN))
        return Credential(workspace, "conn_1", provider, mode, proof, {}, 1)


def echo(request: httpx.Request) -> httpx.Response:
    """Answer as a server that repeats the address it was asked for."""
    return httpx.Response(400, json={"ok": False, "description": f"bad {request.url}"})


def good(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"ok": True, "result": {"message_id": 7}})


def broken(request: httpx.Request) -> httpx.Response:
    raise translate(ClientConnectionError(f"Cannot connect to {request.url}"))


@pytest.mark.parametrize("answer", [good, echo, broken])
async def test_token_reaches_the_vendor_and_nothing_that_is_kept(answer):
    logged = LogCapture()
    structlog.configure(processors=[logged])
    calls = ScriptedCalls(answer)
    driver = Driver(calls, BotTokens(), Settings())
    params = orjson.dumps({"chat_id": 4711, "text": "hi"})
    step = command(provider="telegram", max_attempts=1)
    step = type(step)(**{f: getattr(step, f) for f in step.__struct_fields__} | {
        "params": type(step.params)(params)
    })  # fmt: skip
    carried = await driver.run(step, TELEGRAM, TELEGRAM.action("send_message"))
    structlog.reset_defaults()
    assert [str(request.url) for request in calls.seen] == [
        f"https://api.telegram.org/bot{TOKEN}/sendMessage"
    ]
    assert TOKEN not in str(dict(calls.seen[0].headers))
    kept = repr((carried, logged.entries))
    assert TOKEN not in kept
    assert carried.request["url"] == "https://api.telegram.org/bot{credential}/sendMessage"
    assert TOKEN not in repr(Proof(IN_URL, Secret(TOKEN)))


def test_mark_of_a_caller_is_no_way_to_read_the_credential():
    base = "https://api.telegram.org/bot{credential}"
    asked = f"{base}/sendMessage?chat_id=4711&text={IN_URL}"
    assert Proof(IN_URL, Secret(TOKEN)).url(asked) == (
        f"https://api.telegram.org/bot{TOKEN}/sendMessage?chat_id=4711&text={IN_URL}"
    )


def test_header_credentials_leave_addresses_alone():
    url = "https://api.example/a?b=c"
    assert Proof("Authorization", Secret("Bearer x")).url(url) == url
