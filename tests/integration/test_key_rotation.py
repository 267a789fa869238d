"""Keys of every layer are changed while others refresh, connect, crash: nothing is lost."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from schemas.errors import Conflict, InvalidInput, NotFound, SecretUnavailable
from schemas.settings import Secret
from tests.integration.vault_parts import Site, open_site
from token_vault.core.envelope import key_id_of
from token_vault.core.grants import App
from token_vault.key_report import drop_root, report
from token_vault.keys import KeyRing
from token_vault.root import open_provider
from token_vault.rotation import Progress, Rotation, destroy, retire
from token_vault.store import Account, Connection
from token_vault.vault import Vault
from wire.clock import now as clock


@pytest.fixture
async def site(database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(database, tmp_path) as opened:
        yield opened
        # The next test has another key file's state and none of these rows.
        await opened.sql("DELETE FROM workspaces")
        await opened.sql("DELETE FROM key_rotations")
        await opened.sql("DELETE FROM signing_keys")


def rotation(site: Site, settle_s: float = 0.0, **more) -> Rotation:
    root = open_provider(site.settings)
    return Rotation(site.pool, KeyRing(root, site.pool), root, settle_s=settle_s, **more)


async def keys_of(site: Site, kind: str) -> dict[str, bool]:
    """Key id -> whether it is retired."""
    rows = await site.sql(
        "SELECT id, retired_at IS NOT NULL FROM vault_keys"
        " WHERE workspace_id = %s AND kind = %s ORDER BY created_at",
        site.workspace,
        kind,
    )
    return dict(rows)


async def token(vault: Vault, site: Site, user: str = "u1") -> str:
    credential = await vault.tokens.resolve(site.workspace, "test", "slack", user)
    return credential.header_value.reveal()


async def keep_webhook_secret(site: Site, text: str) -> None:
    sealed = await site.vault.seal_webhook_secret(site.workspace, Secret(text))
    item = {"ciphertext": sealed, "expires_at": None}
    await site.sql(
        "UPDATE workspaces SET webhook_secrets = %s WHERE id = %s", Jsonb([item]), site.workspace
    )


async def store_token(vault: Vault, row: Connection, text: str) -> None:
    """Store another token as a refresh does: lease, seal, compare-and-swap."""
    current = await vault.store.get(row.workspace_id, row.id)
    assert current is not None
    leases = vault.tokens.refresher.leases
    version = current.credential_version
    leased = await leases.lease(row.workspace_id, row.id, version, text, reason="refused")
    assert leased is not None
    held = replace(await vault.sealer.open_credential(leased), access_token=Secret(text))
    sealed = await vault.sealer.seal_credential(row.workspace_id, row.id, row.user_id, held)
    account = Account(row.auth_kind, row.account_id, row.account_name, row.variables, row.scopes,
                      row.expires_at)  # fmt: skip
    assert await leases.commit(leased, text, account, sealed) is not None


async def test_every_layer_gets_new_keys_and_everything_opens(site: Site) -> None:
    rows = {user: await site.connect("slack", user) for user in ("u1", "u2")}
    before = {user: await token(site.vault, site, user) for user in rows}
    await keep_webhook_secret(site, "whsec_kept")
    await site.sql(
        "INSERT INTO signing_keys (id, sealed, created_at) VALUES ('sig_1', %s, now())",
        await site.vault.seal_own("signing_key/sig_1", Secret("signs")),
    )
    slack = site.vault.catalogue.get("slack")
    own = App("own-1", Secret("own-secret"))
    await site.vault.apps.put(
        site.workspace, slack, own, scopes=None, redirect_uri=None, by="key_1", at=clock()
    )
    old = {kind: list(await keys_of(site, kind)) for kind in ("workspace", "user")}
    old_root = await open_provider(site.settings).current()

    ended = await rotation(site).rotate()

    assert [(run.layer, run.failed) for run in ended] == [
        ("root", 0),
        ("workspace", 0),
        ("user", 0),
    ]
    root = open_provider(site.settings)
    assert await root.current() not in ("", old_root)
    await drop_root(site.pool, root, old_root)  # nothing needs it any more
    fresh = await site.another()
    assert {user: await token(fresh, site, user) for user in rows} == before
    assert [s.reveal() for s in await fresh.webhook_secrets(site.workspace)] == ["whsec_kept"]
    kept = await fresh.apps.get(site.workspace, slack, "live")
    assert (kept.client_id, kept.client_secret.reveal()) == ("own-1", "own-secret")
    ((secret,),) = await site.sql("SELECT secret FROM oauth_apps")
    assert key_id_of(bytes(secret)) not in old["workspace"]
    ((sealed,),) = await site.sql("SELECT sealed FROM signing_keys")
    assert (await fresh.open_own("signing_key/sig_1", bytes(sealed))).reveal() == "signs"
    for kind, names in old.items():
        now = await keys_of(site, kind)
        assert {name: now.pop(name) for name in names} == dict.fromkeys(names, True)
        assert list(now.values()) == [False] * len(names)
    for user, row in rows.items():
        current = await site.row(row)
        assert current.credential is not None
        assert key_id_of(current.credential) not in old["user"], user
        assert current.credential_version == row.credential_version


async def test_process_that_ran_all_the_time_needs_no_restart(site: Site) -> None:
    await site.connect("slack")
    before = await token(site.vault, site)
    await rotation(site).rotate()
    await destroy(site.pool, after_s=0)
    site.vault.tokens.forget((await site.connect("slack", "u2")).id)
    site.vault.tokens._cached.clear()
    assert await token(site.vault, site) == before
    ((wrapped_by,),) = await site.sql(
        "SELECT DISTINCT wrapped_by FROM vault_keys WHERE kind = 'workspace'"
    )
    assert wrapped_by == await open_provider(site.settings).current()


async def test_refresh_that_commits_meanwhile_is_never_lost(site: Site) -> None:
    rows = [await site.connect("slack", f"u{n}") for n in range(6)]
    other = await site.another()
    last: dict[str, str] = {}
    over = asyncio.Event()

    async def refresh_all_the_time(vault: Vault, mine: list[Connection]) -> int:
        number = 0
        while not over.is_set():
            for row in mine:
                number += 1
                last[row.id] = f"xoxb-{row.user_id}-{number}"
                await store_token(vault, row, last[row.id])
        return number

    writers = [
        asyncio.create_task(refresh_all_the_time(site.vault, rows[:3])),
        asyncio.create_task(refresh_all_the_time(other, rows[3:])),
    ]
    try:
        for _ in range(3):
            ended = await rotation(site, settle_s=0.3).rotate(("workspace", "user"))
            assert [run.failed for run in ended] == [0, 0]
    finally:
        over.set()
        counts = await asyncio.gather(*writers)
    assert min(counts) > 20, counts
    fresh = await site.another()
    for row in rows:
        held = await fresh.sealer.open_credential(await site.row(row))
        assert held.access_token.reveal() == last[row.id]


async def test_process_that_still_seals_with_the_old_key_is_waited_for(site: Site) -> None:
    row = await site.connect("slack")
    behind = await site.another()
    await behind.keys.user_key(site.workspace, "u1")  # takes it for the newest for some seconds
    settling = asyncio.Event()

    def tell(step: Progress) -> None:
        if step.phase == "settling":
            settling.set()

    async def store_late() -> None:
        await settling.wait()
        await store_token(behind, row, "xoxb-late")

    late = asyncio.create_task(store_late())
    old = list(await keys_of(site, "user"))
    await rotation(site, settle_s=1.0, tell=tell).rotate(("user",))
    await late
    current = await site.row(row)
    assert current.credential is not None
    assert key_id_of(current.credential) not in old
    assert await destroy(site.pool, after_s=0) == 1
    fresh = await site.another()
    assert await token(fresh, site) == "Bearer xoxb-late"


async def test_rotation_that_is_broken_off_goes_on_where_it_was(site: Site) -> None:
    for number in range(5):
        await site.connect("slack", f"u{number}")
    tokens = [await token(site.vault, site, f"u{number}") for number in range(5)]

    class BrokenOffError(Exception):
        pass

    def break_off(step: Progress) -> None:
        if step.done >= 5:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        await rotation(site, tell=break_off).rotate(("user",))
    found = await report(site.pool, open_provider(site.settings))
    assert [run.layer for run in found.unfinished] == ["user"]
    assert not found.running
    (ended,) = await rotation(site).rotate(("user",))
    assert ended.continued
    assert len(await keys_of(site, "user")) == 10, "no key was made twice"
    assert sorted((await keys_of(site, "user")).values()) == [False] * 5 + [True] * 5
    fresh = await site.another()
    assert [await token(fresh, site, f"u{number}") for number in range(5)] == tokens
    assert (await report(site.pool, open_provider(site.settings))).unfinished == []


async def test_two_rotations_do_not_run_at_once(site: Site) -> None:
    await site.connect("slack")
    started = asyncio.Event()
    first = asyncio.create_task(
        rotation(site, settle_s=600.0, tell=lambda _: started.set()).rotate(("user",))
    )
    await started.wait()
    with pytest.raises(Conflict, match="nhood keys status"):
        await rotation(site).rotate(("user",))
    assert (await report(site.pool, open_provider(site.settings))).running
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    (ended,) = await rotation(site).rotate(("user",))
    assert ended.continued


async def test_one_workspace_alone_can_be_rotated(site: Site) -> None:
    await site.connect("slack")
    workspace_keys = await keys_of(site, "workspace")
    ended = await rotation(site).rotate(("workspace", "user"), site.workspace)
    assert [run.layer for run in ended] == ["workspace", "user"]
    assert len(await keys_of(site, "workspace")) == 2 * len(workspace_keys)
    with pytest.raises(InvalidInput):
        await rotation(site).rotate(("root",), site.workspace)
    with pytest.raises(NotFound):
        await rotation(site).rotate(("user",), "ws_00000000000000000000000000")


async def test_what_was_destroyed_is_not_brought_back(site: Site) -> None:
    await site.connect("slack", "u1")
    await site.connect("slack", "u2")
    await site.vault.keys.destroy_user_key(site.workspace, "u1")
    (ended,) = await rotation(site).rotate(("user",))
    assert ended.failed == 1
    fresh = await site.another()
    with pytest.raises(SecretUnavailable) as caught:
        await token(fresh, site, "u1")
    assert caught.value.code == "key_destroyed"
    assert await token(fresh, site, "u2")


async def test_damaged_secret_keeps_its_key_and_stops_nobody(site: Site) -> None:
    row = await site.connect("slack", "u1")
    await site.connect("slack", "u2")
    whole = (await site.row(row)).credential
    assert whole is not None
    cut = whole[:-1] + bytes([whole[-1] ^ 1])
    await site.sql("UPDATE connections SET credential = %s WHERE id = %s", cut, row.id)
    (ended,) = await rotation(site).rotate(("user",))
    assert ended.failed == 1
    assert await destroy(site.pool, after_s=0) == 1, "only the other one's"
    await site.sql("UPDATE connections SET credential = %s WHERE id = %s", whole, row.id)
    assert await token(await site.another(), site, "u1")


async def test_key_in_use_is_never_destroyed(site: Site) -> None:
    row = await site.connect("slack")
    await site.sql("UPDATE vault_keys SET retired_at = now() - interval '1 year'")
    assert await destroy(site.pool) == 0
    await site.vault.disconnect(site.workspace, "test", row.id)
    assert await destroy(site.pool) == 1, "the user's"
    assert await destroy(site.pool) == 1, "then the workspace's"


async def test_only_key_of_a_scope_is_never_retired(site: Site) -> None:
    row = await site.connect("slack")
    await site.vault.disconnect(site.workspace, "test", row.id)
    assert await retire(site.pool, 0) == 0


async def test_consent_under_way_keeps_the_old_key_until_it_ends(site: Site) -> None:
    url = await site.offer("zendesk")  # seals a PKCE verifier with the workspace's key
    (old,) = await keys_of(site, "workspace")
    await rotation(site).rotate(("workspace",))
    assert (await keys_of(site, "workspace"))[old] is False
    page = await site.come_back(await site.consent(url))
    assert page.status_code == 200, page.text
    assert await retire(site.pool, 0) == 1
    assert (await keys_of(site, "workspace"))[old] is True


async def test_root_key_that_is_needed_cannot_be_dropped(site: Site) -> None:
    await site.connect("slack")
    root = open_provider(site.settings)
    before = await root.current()
    with pytest.raises(Conflict, match="wrapped by"):
        await drop_root(site.pool, root, before)
    await rotation(site).rotate(("root",))
    with pytest.raises(Conflict, match="wrapped by"):
        await drop_root(site.pool, root, await root.current())
    found = await report(site.pool, root)
    assert found.roots[before] == 0
    await drop_root(site.pool, root, before)
    with pytest.raises(NotFound):
        await drop_root(site.pool, root, before)


async def test_root_that_was_added_by_hand_is_taken_without_making_another(
    site: Site, tmp_path: Path
) -> None:
    await site.connect("slack")
    path = tmp_path / "master.key"
    path.write_text(path.read_text() + base64.b64encode(b"n" * 32).decode() + "\n")
    added = await open_provider(site.settings).current()
    (ended,) = await rotation(site).rotate(("root",))
    assert (ended.root, ended.done) == (added, 1)
    assert len(path.read_text().split()) == 2


async def test_row_that_was_copied_to_another_tenant_does_not_open_after_a_rotation(
    site: Site,
) -> None:
    """A rotation must not launder a row that was copied to another tenant."""
    made = await site.connect("slack")
    stranger = (await site.sql("INSERT INTO workspaces (id, name, email, plan)"
                               " VALUES ('ws_7zzzzzzzzzzzzzzzzzzzzzzzzz', 'S', 's@s.example',"
                               " 'free') RETURNING id"))[0][0]  # fmt: skip
    await site.sql("UPDATE vault_keys SET workspace_id = %s", stranger)
    await site.sql("UPDATE connections SET workspace_id = %s WHERE id = %s", stranger, made.id)
    ended = await rotation(site).rotate()
    assert sum(run.failed for run in ended) >= 1
    fresh = await site.another()
    with pytest.raises(SecretUnavailable):
        await fresh.tokens.resolve(stranger, "test", "slack", "u1")
