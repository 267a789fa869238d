"""Webhooks that the platform registers at the vendor, over real HTTP on every side."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from schemas.provider import ProviderSpec
from schemas.registration import registration_of
from tests.contract.cases import CATALOGUE
from tests.integration.control.people_parts import (
    V1,
    Gateway,
    forget_tries,
    running_gateway,
    settings_for,
)
from tests.integration.sandbox_parts import CUSTOMER, Playground, running_sandbox

GITHUB = {"owner": "octocat", "repo": "hello", "events": ["issues"]}
TEAMS = {"resource": "/chats/getAllMessages"}
REGISTERED = [spec for spec in CATALOGUE if registration_of(spec) is not None]
# Its webhooks are made by actions as well, and the sandbox answers with these.
BY_ACTIONS = ("airtable",)
EVENTS = "nhood.events.v1"


@dataclass
class Site:
    gateway: Gateway
    sandbox: Playground
    path: str
    key: dict[str, str]

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        address = path if path.startswith("/api") else f"{self.path}{path}"
        return await self.gateway.client.request(method, address, json=body, headers=self.key)

    async def connect(self, slug: str) -> str:
        body = {"provider": slug, "user_id": "u1", "variables": CUSTOMER.get(slug, {})}
        offer = await self.call("POST", "/api/v1/integrations/auth-url", body)
        if offer.status_code == 200:
            page = offer.json()["url"] + "&sandbox_auto=allow&sandbox_account=Acme"
            back = await self.sandbox.client.get(page)
            done = await self.gateway.client.get(back.headers["location"])
            assert done.status_code == 200, done.text
        else:
            spec = CATALOGUE.get(slug)
            known = {one.name: "sandbox_token" for one in spec.auth.credentials}
            entered = await self.call("POST", "/connections", body | {"credentials": known})
            assert entered.status_code == 201, entered.text
        found = await self.call("GET", f"/connections?provider={slug}")
        (connection,) = found.json()["items"]
        return connection["id"]

    async def subscribe(self, slug: str, params: Any, **more: Any) -> httpx.Response:
        body = {"provider": slug, "params": params, **more}
        return await self.call("POST", "/webhook-endpoints", body)

    async def made(self, slug: str, params: Any) -> dict[str, Any]:
        answer = await self.subscribe(slug, params, connection_id=await self.connect(slug))
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def shown(self, made: dict[str, Any]) -> dict[str, Any]:
        return (await self.call("GET", f"/webhook-endpoints/{made['endpoint_id']}")).json()

    async def at_vendor(self, slug: str) -> list[dict[str, Any]]:
        asked = {"provider": slug}
        url = f"{self.sandbox.url}/_sandbox/subscriptions"
        return (await self.sandbox.client.get(url, params=asked)).json()

    async def came(self, slug: str, call: str) -> int:
        return (await self.sandbox.counts(slug))["by_action"].get(f"{slug}.hooks.{call}", 0)

    async def vendor_sends(self, slug: str, event: str = "") -> list[dict[str, Any]]:
        body = {"provider": slug, "event": event}
        answer = await self.sandbox.client.post(f"{self.sandbox.url}/_sandbox/webhooks", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def bring_due(self) -> None:
        async with self.gateway.ports.pool.connection() as on:
            await on.execute(
                "UPDATE webhook_endpoints SET renew_at = now()"
                " WHERE renew_at IS NOT NULL AND workspace_id = %s",
                (self.path.rpartition("/")[2],),
            )

    async def events(self) -> list[bytes]:
        """Give the subjects of the events on the log."""
        logs = [await self.gateway.bus.read(EVENTS, part, 0, 100) for part in range(3)]
        return [dict(stored.headers)["ce_subject"] for log in logs for stored in log]


@pytest.fixture
async def site(database, master_key, stack):
    await forget_tries(stack.valkey)
    async with running_sandbox() as sandbox:
        settings = settings_for(database, master_key, stack.valkey)
        settings = replace(settings, sandbox_url=sandbox.url)
        async with running_gateway(settings) as gateway:
            new = {"name": "A", "email": "a@b.example", "plan": "free"}
            body = (await gateway.client.post(V1, json=new)).json()
            key = {"authorization": f"Bearer {body['test_api_key']}"}
            yield Site(gateway, sandbox, f"{V1}/{body['workspace_id']}", key)


def params_of(spec: ProviderSpec) -> dict[str, Any]:
    """Give what is to be subscribed to, in a form that renders."""
    plan = registration_of(spec)
    assert plan is not None
    if spec.slug == "airtable":
        return {"base_id": "appLkNDICXNqxSDhG", "data_types": ["tableData"]}
    lists = ("events", "types", "data_types")
    return {name: ["some"] if name in lists else "some" for name in plan.params}


@pytest.mark.parametrize("spec", REGISTERED, ids=lambda spec: spec.slug)
async def test_subscription_is_made_brings_events_and_is_removed(
    site: Site, spec: ProviderSpec
) -> None:
    made = await site.made(spec.slug, params_of(spec))
    assert made["subscription"] == "active"
    assert made["secret"] is None  # nobody has to enter it
    plan = registration_of(spec)
    assert plan is not None
    assert (made["renews_at"] is None) == (plan.renew_s is None)
    if spec.slug not in BY_ACTIONS:
        (there,) = await site.at_vendor(spec.slug)
        assert there["url"] == made["url"] or spec.slug == "gmail"  # which pushes to a topic's
    gone = await site.call("DELETE", f"/webhook-endpoints/{made['endpoint_id']}")
    assert gone.status_code == 204
    assert await site.at_vendor(spec.slug) == []
    answers = [one["status"] for one in await site.sandbox.received(spec.slug)]
    assert all(status < 400 for status in answers), answers


async def test_event_of_a_registered_webhook_is_taken(site: Site) -> None:
    await site.made("github", GITHUB)
    (sent,) = await site.vendor_sends("github", "issues")
    assert (sent["status"], sent["tries"]) == (200, 1)
    assert await site.events() == [b"github/issues"]


async def test_secret_that_the_vendor_makes_is_the_one_that_is_checked(site: Site) -> None:
    some = {"events": ["x"]}
    for slug, params in (("zendesk", some), ("clickup", some), ("sendgrid", {})):
        assert (await site.made(slug, params))["has_secret"]
        (sent,) = await site.vendor_sends(slug)
        assert sent["status"] < 300, sent


async def test_secrets_are_not_shown_by_the_sandbox(site: Site) -> None:
    await site.made("github", GITHUB)
    await site.made("microsoft_teams", TEAMS)
    (there,) = site.sandbox.app.world.subscriptions.of("github")
    (team,) = site.sandbox.app.world.subscriptions.of("microsoft_teams")
    shown = (
        f"{await site.sandbox.received('github')} {await site.sandbox.received('microsoft_teams')}"
    )
    assert there.secret not in shown
    assert team.secret not in shown


async def test_vendors_refusal_is_told_and_leaves_nothing(site: Site) -> None:
    connection = await site.connect("github")
    said = {"message": "Validation Failed"}
    await site.sandbox.fault("github", "hooks.create", {"status": 422, "body": said})
    refused = await site.subscribe("github", GITHUB, connection_id=connection)
    assert (refused.status_code, refused.json()["code"]) == (422, "subscription_refused")
    assert "Validation Failed" in refused.json()["detail"]
    await site.sandbox.fault("github", "hooks.create", {"status": 502, "body": {}})
    down = await site.subscribe("github", GITHUB, connection_id=connection)
    assert (down.status_code, down.json()["code"]) == (503, "vendor_unavailable")
    assert (await site.call("GET", "/webhook-endpoints")).json()["items"] == []


@pytest.mark.parametrize(
    ("slug", "more", "code"),
    [
        ("github", {"params": {"owner": "o", "repo": "r"}}, "invalid_params"),
        ("github", {"params": GITHUB | {"branch": "x"}}, "invalid_params"),
        ("github", {"params": GITHUB | {"repo": ".."}}, "invalid_params"),
        ("github", {"params": GITHUB | {"events": ["x" * 20_000]}}, "too_long"),
        ("slack", {"params": {}}, "no_registration"),
    ],
)
async def test_params_that_cannot_be_are_refused(
    site: Site, slug: str, more: dict[str, Any], code: str
) -> None:
    connection = await site.connect(slug)
    refused = await site.subscribe(slug, connection_id=connection, **more)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert (await site.call("GET", "/webhook-endpoints")).json()["items"] == []
    assert await site.came("github", "create") == 0


async def test_params_need_a_connection(site: Site) -> None:
    refused = await site.subscribe("github", GITHUB)
    assert refused.status_code == 422
    assert "connection_id" in refused.json()["detail"]


async def test_ended_token_is_refreshed_to_subscribe(site: Site) -> None:
    connection = await site.connect("zendesk")
    await site.sandbox.client.post(
        f"{site.sandbox.url}/_sandbox/expire", json={"provider": "zendesk"}
    )
    made = await site.subscribe("zendesk", {"events": ["x"]}, connection_id=connection)
    assert made.status_code == 201, made.text


async def test_subscription_is_renewed_before_it_ends_by_one_of_many(site: Site) -> None:
    made = await site.made("microsoft_teams", TEAMS)
    turn = site.gateway.ports.subscriptions.turn
    assert not await turn()
    await site.bring_due()
    await asyncio.gather(*(turn() for _ in range(4)))
    assert await site.came("microsoft_teams", "renew") == 1
    (there,) = await site.at_vendor("microsoft_teams")
    assert there["renewed"] == 1
    after = await site.shown(made)
    assert (after["subscription"], after["renews_at"] > made["renews_at"]) == ("active", True)
    assert not await turn()


async def test_subscription_that_is_gone_at_the_vendor_is_made_anew(site: Site) -> None:
    await site.made("microsoft_teams", TEAMS)
    (lost,) = site.sandbox.app.world.subscriptions.of("microsoft_teams")
    site.sandbox.app.world.subscriptions.forget(lost.id)
    await site.bring_due()
    await site.gateway.ports.subscriptions.turn()
    (there,) = await site.at_vendor("microsoft_teams")
    assert there["id"] != lost.id
    (sent,) = await site.vendor_sends("microsoft_teams")
    assert sent["status"] == 202


async def test_renewal_that_fails_is_shown_and_tried_again(site: Site) -> None:
    made = await site.made("microsoft_teams", TEAMS)
    await site.sandbox.fault("microsoft_teams", "hooks.renew", {"status": 503, "body": {}})
    await site.bring_due()
    await site.gateway.ports.subscriptions.turn()
    shown = await site.shown(made)
    assert shown["subscription"] == "failing"
    assert "503" in shown["subscription_error"]
    await site.bring_due()
    await site.gateway.ports.subscriptions.turn()
    assert (await site.shown(made))["subscription"] == "active"


async def test_deleting_the_connection_takes_its_subscriptions_back(site: Site) -> None:
    connection = await site.connect("github")
    assert (await site.subscribe("github", GITHUB, connection_id=connection)).status_code == 201
    await site.call("DELETE", f"/connections/{connection}")
    assert await site.at_vendor("github") == []


async def test_address_is_deleted_where_the_vendor_fails_and_refuses_it_then(
    site: Site,
) -> None:
    made = await site.made("github", GITHUB)
    await site.sandbox.fault("github", "hooks.remove", {"status": 500})
    gone = await site.call("DELETE", f"/webhook-endpoints/{made['endpoint_id']}")
    assert gone.status_code == 204
    (sent,) = await site.vendor_sends("github", "issues")
    assert sent["status"] == 404
