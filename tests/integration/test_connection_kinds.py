"""Every kind of credential: tried at the vendor before it is stored, then used by real steps.

The catalogue has no provider for some kinds yet: `tests/fixtures/providers` has one for each, which
the sandbox plays; AWS's signatures are judged by moto, which checks them with botocore's own code.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from moto.server import ThreadedMotoServer

from executors.core.result import Carried
from executors.runtime.driver import Driver
from nhood.embedded.server import free_port
from schemas.errors import Conflict
from schemas.events import Payload, RequestStep
from schemas.provider import load_catalogue
from schemas.settings import ProviderOverride
from tests.integration.vault_parts import Site, open_site
from wire.calls import AiohttpCalls

KINDS = load_catalogue(Path(__file__).parents[1] / "fixtures" / "providers")
GOOD: dict[str, dict[str, Any]] = {
    "keyed": {
        "credentials": {"app_key": "app-key-1", "user_token": "sandbox_token"},
        "variables": {"region": "us"},
    },
    "posted": {
        "credentials": {"user": "zoë", "password": "sandbox_token"},
        "variables": {"host": "acme.posted.example"},
    },
    "signed": {
        "credentials": {
            "access_key_id": "AKIDEXAMPLEEXAMPLE",
            "secret_access_key": "sandbox_token",
            "session_token": "temporary==",
        },
        "variables": {"region": "eu-west-1"},
    },
    "machine": {"credentials": {"client_id": "c-1", "client_secret": "sandbox_token"}},
}
SECRET = {
    "keyed": "user_token",
    "posted": "password",
    "signed": "secret_access_key",
    "machine": "client_secret",
}


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path, KINDS) as opened:
        yield opened


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Address of an AWS that checks signatures."""
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def path(site: Site, rest: str = "") -> str:
    return f"/api/v1/workspaces/{site.workspace}/connections{rest}"


def body(slug: str, **changes: Any) -> dict[str, Any]:
    return {"provider": slug, "user_id": "u1"} | GOOD[slug] | changes


def with_secret(slug: str, value: str) -> dict[str, Any]:
    return body(slug, credentials=GOOD[slug]["credentials"] | {SECRET[slug]: value})


async def act(site: Site, slug: str, mode: str = "test", **params: Any) -> Carried:
    """Let a step call the provider's only action, as executors do."""
    spec = KINDS.get(slug)
    action = next(iter(spec.actions.values()))
    values: dict[str, Any] = {
        "workspace_id": site.workspace, "execution_id": "ex", "workflow_id": "wf", "version": 1,
        "step_id": "s", "loop_index": 0, "effect_key": "e" * 40, "provider": slug,
        "action": action.id, "params": Payload(orjson.dumps(params or action.example.params)),
        "mode": mode, "user": "u1", "connection_id": None, "order_key": None, "max_attempts": 1,
        "retry_delay_ms": 1, "retry_max_delay_ms": 2, "timeout_ms": 10_000, "on_unknown": "fail",
        "state": Payload(b"{}"), "requested_at_us": 1,
    }  # fmt: skip
    async with AiohttpCalls(lambda _host, _port: True) as calls:
        driver = Driver(calls, site.vault.tokens, site.settings)
        return await driver.run(RequestStep(**values), spec, action)


async def stored(site: Site) -> int:
    rows = await site.sql(
        "SELECT count(*) FROM connections WHERE workspace_id = %s", site.workspace
    )
    return int(rows[0][0])


@pytest.mark.parametrize("slug", list(GOOD))
async def test_entered_credentials_are_tried_stored_and_used(site: Site, slug: str) -> None:
    answer = await site.call("POST", path(site), json=body(slug))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["auth_kind"] == KINDS.get(slug).auth.kind
    assert (made["state"], bool(made["account_id"])) == ("active", True)
    assert "sandbox_token" not in answer.text
    carried = await act(site, slug)
    assert carried.outcome.kind == "succeeded", carried
    assert "sandbox_token" not in repr(carried)
    rows = await site.sql("SELECT credential, variables FROM connections")
    assert not any(b"sandbox_token" in bytes(row[0]) for row in rows)


@pytest.mark.parametrize("slug", list(GOOD))
async def test_refused_credentials_are_told_and_not_stored(site: Site, slug: str) -> None:
    answer = await site.call("POST", path(site), json=with_secret(slug, "not-the-secret"))
    assert (answer.status_code, answer.json()["code"]) == (422, "credentials_refused")
    places = [problem["place"] for problem in answer.json()["problems"]]
    assert f"credentials.{SECRET[slug]}" in places
    assert "not-the-secret" not in answer.text
    assert await stored(site) == 0


@pytest.mark.parametrize("slug", list(GOOD))
async def test_vendor_that_does_not_answer_stores_nothing(site: Site, slug: str) -> None:
    part = "oauth.token" if slug == "machine" else "oauth.account"
    await site.sandbox.fault(slug, part, {"status": 503})
    answer = await site.call("POST", path(site), json=body(slug))
    assert (answer.status_code, answer.json()["code"]) == (503, "vendor_unavailable")
    assert await stored(site) == 0


@pytest.mark.parametrize(
    ("slug", "changes", "places"),
    [
        ("keyed", {"credentials": {"app_key": "a"}}, ["credentials.user_token"]),
        ("keyed", {"credentials": {"nonsense": "a"}},
         ["credentials.nonsense", "credentials.app_key", "credentials.user_token"]),
        ("keyed", {"credentials": {"app_key": "a", "user_token": "x y"}},
         ["credentials.user_token"]),
        ("keyed", {"variables": {"region": "evil.example/"}}, ["variables.region"]),
        ("keyed", {"kind": "basic"}, ["kind"]),
        ("posted", {"variables": {}}, ["variables.host"]),
        ("posted", {"variables": {"host": "evil.example"}}, ["variables.host"]),
        ("posted", {"variables": {"host": "a.posted.example@evil.example"}}, ["variables.host"]),
        ("signed", {"variables": {"region": "x.evil.example#"}}, ["variables.region"]),
        ("machine", {"credentials": {"client_id": "c"}}, ["credentials.client_secret"]),
    ],
)  # fmt: skip
async def test_what_cannot_be_right_is_told_at_once_and_sent_nowhere(
    site: Site, slug: str, changes: dict[str, Any], places: list[str]
) -> None:
    answer = await site.call("POST", path(site), json=body(slug, **changes))
    assert answer.status_code == 422, answer.text
    assert [problem["place"] for problem in answer.json()["problems"]] == places
    assert await site.sandbox.received(slug) == []


async def test_one_provider_offers_several_ways(site: Site) -> None:
    pasted = (await site.call("POST", path(site), json=body("keyed"))).json()
    assert (pasted["auth_kind"], pasted["variables"]["region"]) == ("api_key", "us")
    made = await site.connect("keyed", "u2", variables={"region": "eu"})
    assert (made.auth_kind, made.variables["region"]) == ("oauth2", "eu")
    credential = await site.vault.tokens.resolve(site.workspace, "test", "keyed", "u2")
    assert credential.header_value.reveal().startswith("Bearer ")
    assert (await act(site, "keyed")).outcome.kind == "succeeded"


async def test_client_credentials_get_a_new_token_without_a_refresh_token(site: Site) -> None:
    await site.call("POST", path(site), json=body("machine"))
    resolve = site.vault.tokens.resolve
    first = await resolve(site.workspace, "test", "machine", "u1")
    assert first.due_at is not None
    newer = await site.vault.tokens.refreshed(first)
    assert newer.version == first.version + 1
    assert newer.header_value.reveal() != first.header_value.reveal()
    assert (await act(site, "machine")).outcome.kind == "succeeded"


async def test_client_that_is_gone_needs_reauthorisation(site: Site) -> None:
    await site.call("POST", path(site), json=body("machine"))
    first = await site.vault.tokens.resolve(site.workspace, "test", "machine", "u1")
    refused = {"status": 401, "body": {"error": "invalid_client"}}
    await site.sandbox.fault("machine", "oauth.token", refused)
    with pytest.raises(Conflict) as caught:
        await site.vault.tokens.refreshed(first)
    assert caught.value.code == "needs_reauth"
    (shown,) = (await site.call("GET", path(site))).json()["items"]
    assert shown["last_error"]["code"] == "invalid_client"
    again = await site.call("POST", path(site, f"/{shown['id']}/reconnect"), json=GOOD["machine"])
    assert again.status_code == 200, again.text
    assert (again.json()["connection"]["id"], again.json()["url"]) == (shown["id"], None)
    assert again.json()["connection"]["state"] == "active"


async def test_refused_key_is_not_refreshed_but_needs_reauthorisation(site: Site) -> None:
    await site.call("POST", path(site), json=body("posted"))
    given = await site.vault.tokens.resolve(site.workspace, "test", "posted", "u1")
    assert given.due_at is None
    with pytest.raises(Conflict) as caught:
        await site.vault.tokens.refreshed(given)
    assert caught.value.code == "needs_reauth"


async def test_aws_takes_what_we_sign_and_refuses_another_secret(
    database: str, tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = boto3.client(
        "iam", region_name="us-east-1", endpoint_url=aws,
        aws_access_key_id="AKIAFIRSTFIRSTFIRST", aws_secret_access_key="first",
    )  # fmt: skip
    iam.create_user(UserName="mailer")
    rights = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(
        UserName="mailer",
        PolicyName="all",
        PolicyDocument=orjson.dumps(rights | {"Version": "2012-10-17"}).decode(),
    )
    key = iam.create_access_key(UserName="mailer")["AccessKey"]
    # From now on every request's signature is checked. (moto reckons those of requests without a
    # body wrongly, AWS's own clients' too; these have one.)
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    moved = {"providers": {"signed": ProviderOverride(base_url=aws)}}
    async with open_site(database, tmp_path, KINDS, **moved) as site:
        entered = {
            "access_key_id": key["AccessKeyId"],
            "secret_access_key": key["SecretAccessKey"],
        }
        wrong = entered | {"secret_access_key": "x" * 40}
        asked = body("signed", credentials=wrong)
        refused = await site.call("POST", path(site), "live", json=asked)
        assert (refused.status_code, refused.json()["code"]) == (422, "credentials_refused")
        made = await site.call("POST", path(site), "live", json=body("signed", credentials=entered))
        assert made.status_code == 201, made.text
        carried = await act(site, "signed", "live", address="ada+1@acme.example")
        assert carried.outcome.kind == "succeeded", carried
        assert key["SecretAccessKey"] not in repr(carried)
