"""A running sandbox, and a client that calls actions of it as the executors do."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from executors.core.outcome import Outcome
from nhood.providers.trying import Trial
from nhood.sandbox.app import Sandbox, build_app, build_server
from nhood.sandbox.entered import PASTED_TOKEN
from nhood.sandbox.vendor import build_vendors
from schemas.provider import Catalogue, load_catalogue
from schemas.settings import Settings
from tests.contract.vendor import read_vendor, told_by_customer
from token_vault import endpoints
from token_vault.apps import TEST_APP
from wire.http import open_client
from wire.serving import bind

CATALOGUE = load_catalogue()
VENDORS = build_vendors(CATALOGUE)
REDIRECT = "http://localhost:9/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:-1]
# What a customer tells before the consent, and what is known of an account after it.
CUSTOMER = {spec.slug: told_by_customer(spec) for spec in CATALOGUE}
ACCOUNT = {spec.slug: read_vendor(spec.slug).variables for spec in CATALOGUE}


@dataclass
class Playground:
    """A sandbox that runs, and how to call it."""

    app: Sandbox
    url: str
    client: httpx.AsyncClient
    settings: Settings

    async def act(
        self,
        slug: str,
        action: str,
        params: Mapping[str, Any],
        *,
        token: str = PASTED_TOKEN,
        key: str = "effect-1",
    ) -> Outcome:
        """Carry an action out as an executor would and give its outcome."""
        account = ACCOUNT.get(slug, {})
        trial = Trial(CATALOGUE.get(slug), self.client, self.settings, account, token)
        return await trial.act(action, params, key)

    async def fault(self, slug: str, action: str, fault: dict[str, Any], **more: Any) -> None:
        """Let the next call of an action go wrong."""
        script = {"provider": slug, "action": action, "fault": fault, **more}
        answer = await self.client.post(f"{self.url}/_sandbox/faults", json=script)
        assert answer.status_code == 201, answer.text

    async def received(self, slug: str) -> list[dict[str, Any]]:
        """Give what came in."""
        answer = await self.client.get(f"{self.url}/_sandbox/received", params={"provider": slug})
        return answer.json()["items"]  # type: ignore[no-any-return]

    async def counts(self, slug: str) -> dict[str, Any]:
        """Give how often what came in."""
        answer = await self.client.get(f"{self.url}/_sandbox/counts", params={"provider": slug})
        return answer.json()  # type: ignore[no-any-return]

    def authorize_url(self, slug: str, **changes: str | None) -> str:
        """Give a consent page's address."""
        spec = CATALOGUE.get(slug)
        page = endpoints.authorize_url(spec, "test", CUSTOMER.get(slug, {}), self.settings)
        asked: dict[str, str | None] = {
            "client_id": TEST_APP.client_id,
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "state": "s1",
            spec.auth.scope_param: spec.auth.scope_separator.join(spec.auth.default_scopes),
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        kept = {name: value for name, value in (asked | changes).items() if value is not None}
        return f"{page}?{urlencode(kept)}"

    async def code(self, slug: str, **changes: str | None) -> str:
        """Consent and give the code."""
        url = self.authorize_url(slug, sandbox_auto="allow", **changes)
        return landed(await self.client.get(url))["code"]

    async def token(self, slug: str, **asked: str) -> httpx.Response:
        """Ask the token endpoint as the provider file says."""
        spec = CATALOGUE.get(slug)
        url = endpoints.token_url(spec, "test", CUSTOMER.get(slug, {}), self.settings)
        own = {"client_id": TEST_APP.client_id, "client_secret": TEST_APP.client_secret.reveal()}
        if spec.auth.client_auth == "basic":
            auth = (own["client_id"], own["client_secret"])
            if spec.auth.token_body == "json":
                return await self.client.post(url, json=asked, auth=auth)
            return await self.client.post(url, data=asked, auth=auth)
        if spec.auth.token_body == "json":
            return await self.client.post(url, json=own | asked)
        return await self.client.post(url, data=own | asked)

    async def exchange(self, slug: str, code: str, **changes: str) -> httpx.Response:
        """Exchange a code."""
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        return await self.token(slug, **(asked | changes))


def landed(answer: httpx.Response) -> dict[str, str]:
    """Give the query that a browser was sent back with."""
    assert answer.status_code in (302, 303), answer.text
    query = urlsplit(answer.headers["location"]).query
    return {name: values[0] for name, values in parse_qs(query).items()}


@asynccontextmanager
async def running_sandbox(
    journal: Path | None = None, catalogue: Catalogue = CATALOGUE
) -> AsyncIterator[Playground]:
    """Run a sandbox on a free port."""
    vendors = VENDORS if catalogue is CATALOGUE else build_vendors(catalogue)
    app = build_app(catalogue, journal=journal, vendors=vendors)
    server = build_server(app)
    listening = bind("127.0.0.1", 0, "NHOOD_SANDBOX_PORT")
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(60):
            while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
                await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = replace(Settings(), sandbox_url=url)
        async with open_client(allow_private=lambda _host, _port: True) as client:
            yield Playground(app, url, client, settings)
    finally:
        server.stop()
        await running
        listening.close()
