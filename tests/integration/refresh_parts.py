"""What tests of refreshing do with a connection: end its token, look at the vendor, count."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from nhood.sandbox.consent import answers_refresh
from schemas.provider import ProviderSpec
from tests.contract.cases import VENDORS
from tests.integration.sandbox_parts import CATALOGUE
from tests.integration.sandbox_parts import VENDORS as SANDBOXED
from tests.integration.vault_parts import Site
from token_vault.store import Connection
from token_vault.tokens import Credential, TokenSource
from wire.clock import now


def _refreshes(spec: ProviderSpec) -> bool:
    """Whether the sandbox's vendor hands out refresh tokens (Slack's usual apps have none)."""
    if spec.auth.kind != "oauth2" or spec.auth.refresh == "none":
        return False
    return answers_refresh(SANDBOXED[spec.slug])


# A harmless look at each vendor whose tokens are refreshed.
READS = {spec.slug: VENDORS[spec.slug].read or "" for spec in CATALOGUE if _refreshes(spec)}


async def credential_of(site: Site, slug: str, tokens: TokenSource | None = None) -> Credential:
    return await (tokens or site.vault.tokens).resolve(site.workspace, "test", slug, "u1")


async def refreshes(site: Site, slug: str) -> int:
    """How many refreshes reached the vendor."""
    items = await site.sandbox.received(slug)
    asked = [item for item in items if item["action"] == "oauth.token"]
    return sum(item["body"]["grant_type"] == "refresh_token" for item in asked)


async def works(site: Site, slug: str, credential: Credential) -> bool:
    """Whether the vendor takes this credential."""
    spec = CATALOGUE.get(slug)
    name = READS[slug]
    token = credential.header_value.reveal().removeprefix("Bearer ")
    params = spec.actions[name].example.params
    return (await site.sandbox.act(slug, name, params, token=token)).kind == "succeeded"


async def expire(site: Site, connection: Connection, seconds: int) -> None:
    """Set the end of a token that was made an hour ago, as the clock would."""
    row = await site.row(connection)
    held = await site.vault.sealer.open_credential(row)
    at = now() + timedelta(seconds=seconds)
    old = replace(held, issued_at=now() - timedelta(hours=1), expires_at=at)
    sealed = await site.vault.sealer.seal_credential(row.workspace_id, row.id, row.user_id, old)
    await site.sql(
        "UPDATE connections SET credential = %s, expires_at = %s WHERE id = %s", sealed, at, row.id
    )
    site.vault.tokens.forget(row.id)


async def pass_time(site: Site, connection: Connection) -> None:
    """Let the pause after a failure be over."""
    await site.sql("UPDATE connections SET refresh_at = now() WHERE id = %s", connection.id)


async def leased(site: Site, connection: Connection) -> None:
    """Wait until a refresh is under way."""
    async with asyncio.timeout(5):
        while (await site.row(connection)).lease_until is None:  # noqa: ASYNC110 - a row
            await asyncio.sleep(0.01)


async def bring_due(site: Site, *connections: Connection) -> None:
    """Let the clock's time for these have come."""
    ids = [connection.id for connection in connections]
    await site.sql("UPDATE connections SET refresh_at = now() WHERE id = ANY(%s)", ids)


async def changes_of(site: Site, connection: Connection) -> list[tuple[str | None, str, str]]:
    """Give the changes of a connection's state, oldest first: before, after, reason."""
    rows = await site.sql(
        "SELECT before, after, reason FROM connection_events WHERE connection_id = %s ORDER BY id",
        connection.id,
    )
    return [tuple(row) for row in rows]
