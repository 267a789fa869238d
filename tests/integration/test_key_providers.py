"""Who keeps the root key: one suite of promises for the file, Vault's transit engine and AWS KMS.

AWS is played by moto's server, Vault by `tests.vault_server`; both over real HTTP.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from nhood.embedded.server import free_port
from schemas.errors import DependencyDown, InvalidInput, SecretUnavailable
from schemas.settings import Secret, Settings
from tests.integration.vault_parts import new_workspace
from tests.vault_server import TransitServer, running_transit
from token_vault import transit
from token_vault.core.envelope import Place, key_id_of
from token_vault.key_file import create_key_file
from token_vault.keys import KeyRing
from token_vault.root import KeyProvider, open_provider, prove
from token_vault.rotation import Rotation
from token_vault.vault import Vault
from wire.database import Pool, open_pool

PLACE = Place("ws_a", "key_1", "workspace")
ELSEWHERE = Place("ws_b", "key_1", "workspace")
MATERIAL = bytes(range(32))


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Address of moto's server, with credentials that boto3 finds."""
    server = ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-of-the-tests")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


def kms(aws: str) -> Any:
    return boto3.client("kms", region_name="eu-central-1", endpoint_url=aws)


@pytest.fixture
def vault_server() -> Iterator[TransitServer]:
    with running_transit() as server:
        yield server


@dataclass
class Kept:
    """A provider with what it talks to.

    Attributes:
        lose: Takes the root key away, as an operator's mistake would.
    """

    settings: Settings
    lose: Callable[[], None]

    def open(self) -> KeyProvider:
        return open_provider(self.settings)


@pytest.fixture(params=["file", "vault", "aws-kms"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "file":
        path = tmp_path / "master.key"
        create_key_file(path)
        settings = replace(Settings(), master_key_file=str(path))
        return Kept(settings, lambda: path.unlink())
    if request.param == "vault":
        server = request.getfixturevalue("vault_server")
        return Kept(vault_settings(server), server.keys.clear)
    aws = request.getfixturevalue("aws")
    key = kms(aws).create_key()["KeyMetadata"]["Arn"]
    settings = replace(
        Settings(), key_provider="aws-kms", aws_kms_key=key, aws_region="eu-central-1",
        aws_endpoint_url=aws,
    )  # fmt: skip
    return Kept(settings, lambda: httpx.post(f"{aws}/moto-api/reset").raise_for_status())


def vault_settings(server: TransitServer) -> Settings:
    return replace(
        Settings(), key_provider="vault", vault_addr=server.url, vault_token=Secret(server.token)
    )


async def test_wrapped_key_comes_back_and_names_its_root(kept: Kept) -> None:
    provider = kept.open()
    wrapped = await provider.wrap(MATERIAL, PLACE)
    assert await provider.unwrap(wrapped, PLACE) == MATERIAL
    assert key_id_of(wrapped) == await provider.current()
    assert MATERIAL not in wrapped
    again = kept.open()
    assert await again.unwrap(wrapped, PLACE) == MATERIAL, "another process opens it too"


async def test_wrapped_key_opens_in_its_place_only(kept: Kept) -> None:
    provider = kept.open()
    wrapped = await provider.wrap(MATERIAL, PLACE)
    for other in (ELSEWHERE, replace(PLACE, owner="key_2"), replace(PLACE, field="user")):
        with pytest.raises(SecretUnavailable):
            await provider.unwrap(wrapped, other)
    damaged = wrapped[:-3] + (b"AAA" if wrapped[-3:] != b"AAA" else b"BBB")
    with pytest.raises(SecretUnavailable):
        await provider.unwrap(damaged, PLACE)


async def test_what_another_provider_wrapped_is_told_as_the_wrong_root(
    kept: Kept, tmp_path: Path, vault_server: TransitServer
) -> None:
    create_key_file(tmp_path / "other.key")
    others = [
        open_provider(replace(Settings(), master_key_file=str(tmp_path / "other.key"))),
        open_provider(replace(vault_settings(vault_server), vault_key="other")),
    ]
    vault_server.keys["other"] = [os.urandom(32)]
    for other in others:
        wrapped = await other.wrap(MATERIAL, PLACE)
        with pytest.raises(SecretUnavailable) as caught:
            await kept.open().unwrap(wrapped, PLACE)
        assert caught.value.code == "wrong_master_key"
        assert "right one" in caught.value.public


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    found = await open_pool(database, max_size=4)
    async with found.connection() as on:
        await on.execute("DELETE FROM workspaces")
        await on.execute("DELETE FROM key_rotations")
    yield found
    await found.close()


async def test_vault_starts_with_each_provider_and_seals(kept: Kept, pool: Pool) -> None:
    workspace = await new_workspace(pool)
    vault = await Vault.open(kept.settings, pool)
    sealed = await vault.seal_text(workspace, "f", Secret("x"))
    own = await vault.seal_own("o", Secret("y"))
    again = await Vault.open(kept.settings, pool)
    assert (await again.open_text(workspace, "f", sealed)).reveal() == "x"
    assert (await again.open_own("o", own)).reveal() == "y"
    await vault.close()
    await again.close()


async def test_vault_without_its_root_key_does_not_start(kept: Kept, pool: Pool) -> None:
    kept.lose()
    with pytest.raises(SecretUnavailable) as caught:
        await Vault.open(kept.settings, pool)
    assert caught.value.code in ("no_master_key", "root_key_refused")


async def test_vault_with_another_root_key_does_not_start(
    kept: Kept, pool: Pool, tmp_path: Path
) -> None:
    workspace = await new_workspace(pool)
    path = tmp_path / "first.key"
    create_key_file(path)
    first = await Vault.open(replace(Settings(), master_key_file=str(path)), pool)
    await first.seal_text(workspace, "f", Secret("x"))
    await first.close()
    with pytest.raises(SecretUnavailable, match="Bring back the right key") as caught:
        await Vault.open(kept.settings, pool)
    assert caught.value.code == "wrong_master_key"
    assert "wrapped by file:" in caught.value.public


async def test_root_is_rotated_and_everything_opens(
    kept: Kept, pool: Pool, request: pytest.FixtureRequest
) -> None:
    workspace = await new_workspace(pool)
    running = await Vault.open(kept.settings, pool)
    sealed = await running.seal_text(workspace, "f", Secret("x"))
    settings = kept.settings
    if settings.key_provider == "aws-kms":  # a new key is made at AWS
        new = kms(request.getfixturevalue("aws")).create_key()["KeyMetadata"]["Arn"]
        settings = replace(settings, aws_kms_key=new)
    root = open_provider(settings)
    before = await kept.open().current()
    (ended,) = await Rotation(pool, KeyRing(root, pool), root, settle_s=0).rotate(("root",))
    assert ended.failed == 0
    assert ended.done == 1
    assert ended.root == await root.current() != before
    async with pool.connection() as on:
        rows = await (await on.execute("SELECT wrapped_by FROM vault_keys")).fetchall()
    assert rows == [(ended.root,)]
    again = await Vault.open(settings, pool)
    assert (await again.open_text(workspace, "f", sealed)).reveal() == "x"
    running.keys._kept.clear()
    assert (await running.open_text(workspace, "f", sealed)).reveal() == "x", "it still runs"
    await running.close()
    await again.close()


async def test_kms_key_that_is_still_in_force_is_no_rotation(pool: Pool, aws: str) -> None:
    key = kms(aws).create_key()["KeyMetadata"]["Arn"]
    kms(aws).create_alias(AliasName="alias/nhood", TargetKeyId=key)
    settings = replace(
        Settings(), key_provider="aws-kms", aws_kms_key="alias/nhood", aws_region="eu-central-1",
        aws_endpoint_url=aws,
    )  # fmt: skip
    root = open_provider(settings)
    assert await root.current() == f"aws-kms:{key}", "the alias may point elsewhere tomorrow"
    (ended,) = await Rotation(pool, KeyRing(root, pool), root, settle_s=60).rotate(("root",))
    assert (ended.changed, ended.done) == (False, 0)


async def test_vault_server_too_old_to_bind_places_is_refused(
    pool: Pool, vault_server: TransitServer
) -> None:
    vault_server.takes_associated_data = False
    with pytest.raises(SecretUnavailable, match=r"1\.13"):
        await Vault.open(vault_settings(vault_server), pool)


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"sealed": True}, DependencyDown, "root_key_unreachable"),
        ({"token": "hvs.another"}, SecretUnavailable, "root_key_refused"),
        ({"keys": {}}, SecretUnavailable, "no_master_key"),
        ({"type": "rsa-2048"}, SecretUnavailable, "bad_root_key"),
    ],
)
async def test_what_is_wrong_with_the_vault_server_is_told(
    vault_server: TransitServer, change: dict, error: type, code: str
) -> None:
    provider = open_provider(vault_settings(vault_server))
    for name, value in change.items():
        setattr(vault_server, name, value)
    with pytest.raises(error) as caught:
        await provider.current()
    assert caught.value.code == code
    shown = caught.value.public + caught.value.detail + str(caught.value.__dict__)
    assert vault_server.token not in shown
    assert caught.value.__cause__ is None


async def test_version_that_policy_forbids_does_not_open(vault_server: TransitServer) -> None:
    provider = open_provider(vault_settings(vault_server))
    wrapped = await provider.wrap(MATERIAL, PLACE)
    await provider.renew()
    assert await provider.unwrap(wrapped, PLACE) == MATERIAL
    vault_server.min_decryption_version = 2
    with pytest.raises(SecretUnavailable, match="min_decryption_version"):
        await provider.unwrap(wrapped, PLACE)


async def test_token_file_of_the_vault_agent_is_read_again(
    vault_server: TransitServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(vault_server.token + "\n")
    settings = replace(
        vault_settings(vault_server), vault_token=Secret(""), vault_token_file=str(file)
    )
    provider = open_provider(settings)
    await prove(provider)
    vault_server.token = "hvs.renewed"
    with pytest.raises(SecretUnavailable):
        await provider.wrap(MATERIAL, PLACE)
    file.write_text("hvs.renewed")
    await provider.wrap(MATERIAL, PLACE)
    file.unlink()
    with pytest.raises(SecretUnavailable, match="cannot be read"):
        await provider.wrap(MATERIAL, PLACE)


async def test_vault_server_that_hangs_holds_nobody_up(
    vault_server: TransitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transit, "CALL_S", 0.2)
    provider = open_provider(vault_settings(vault_server))
    vault_server.slow_s = 1.0
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    with pytest.raises(DependencyDown) as caught:
        await provider.wrap(MATERIAL, PLACE)
    ticking.cancel()
    assert caught.value.code == "root_key_unreachable"
    assert ticks > 5, "the event loop went on"


async def test_nobody_at_the_address_is_told(aws: str) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    vault = replace(
        Settings(), key_provider="vault", vault_addr=gone, vault_token=Secret("hvs.secret")
    )
    amazon = replace(
        Settings(), key_provider="aws-kms", aws_kms_key="alias/x", aws_region="eu-central-1",
        aws_endpoint_url=gone,
    )  # fmt: skip
    for settings in (vault, amazon):
        with pytest.raises(DependencyDown) as caught:
            await prove(open_provider(settings))
        assert caught.value.code == "root_key_unreachable"
        assert "hvs.secret" not in caught.value.detail


async def test_aws_without_credentials_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = replace(Settings(), key_provider="aws-kms", aws_kms_key="alias/x")
    with pytest.raises(SecretUnavailable, match="NHOOD_AWS_REGION"):
        open_provider(settings)
    with pytest.raises(SecretUnavailable, match="credentials"):
        await prove(open_provider(replace(settings, aws_region="eu-central-1")))


async def test_two_processes_follow_a_key_file_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    create_key_file(path)
    settings = replace(Settings(), master_key_file=str(path))
    one, two = open_provider(settings), open_provider(settings)
    before = await two.wrap(MATERIAL, PLACE)
    new = await one.renew()
    assert new is not None
    assert key_id_of(await two.wrap(MATERIAL, PLACE)) == new
    assert await one.unwrap(before, PLACE) == MATERIAL
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["master.key", "master.key.lock"]  # noqa: PTH208


async def test_key_file_in_production_needs_a_word(tmp_path: Path, pool: Pool) -> None:
    create_key_file(tmp_path / "master.key")
    settings = replace(
        Settings(), environment="production", master_key_file=str(tmp_path / "master.key")
    )
    with pytest.raises(SecretUnavailable, match="NHOOD_KEY_FILE_IN_PRODUCTION"):
        await Vault.open(settings, pool)
    vault = await Vault.open(replace(settings, key_file_in_production=True), pool)
    await vault.close()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"NHOOD_KEY_PROVIDER": "gcp"}, "NHOOD_KEY_PROVIDER: 'gcp' is no key provider"),
        ({"NHOOD_KEY_PROVIDER": "aws-kms"}, "NHOOD_AWS_KMS_KEY: is missing"),
        ({"NHOOD_KEY_PROVIDER": "vault"}, "NHOOD_VAULT_TOKEN_FILE: is missing"),
        ({"NHOOD_KEY_PROVIDER": "vault", "NHOOD_VAULT_ADDR": "vault:8200"}, "is not an address"),
        ({"NHOOD_KEY_PROVIDER": "vault", "NHOOD_VAULT_ADDR": "http://[::"}, "is not an address"),
        (
            {"NHOOD_KEY_PROVIDER": "vault", "NHOOD_VAULT_ADDR": "http://vault.example.com"},
            "NHOOD_VAULT_ADDR: is not https",
        ),
    ],
)
def test_settings_that_do_not_make_a_provider_are_told(env: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.from_env(env)
    assert told in caught.value.public


def test_settings_of_each_provider_go_through_the_environment() -> None:
    env = {
        "NHOOD_KEY_PROVIDER": "vault",
        "NHOOD_VAULT_ADDR": "http://127.0.0.1:8200",
        "NHOOD_VAULT_TOKEN": "hvs.x",
        "NHOOD_KEY_FILE_IN_PRODUCTION": "true",
    }
    settings = Settings.from_env(env)
    assert Settings.from_env(settings.to_env()) == settings
    assert "hvs.x" not in repr(settings)
