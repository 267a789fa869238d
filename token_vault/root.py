"""The root key's keeper: a port, the choice by setting, and the proof that it works.

    file      32 bytes in a file beside the service; for development   `token_vault.key_file`
    vault     HashiCorp Vault's transit engine, or OpenBao's           `token_vault.transit`
    aws-kms   AWS Key Management Service                               `token_vault.aws_kms`

Of the last two the root never leaves its service: we send it workspace keys to wrap and unwrap.
"""

import os
from typing import Final, Protocol

import structlog

from schemas.errors import SecretUnavailable
from schemas.settings import Settings
from token_vault.core.envelope import KEY_BYTES, Place, key_id_of
from wire.database import Pool, connection

# Of the newest workspace keys, so many are tried before a start is refused.
CHECKED_KEYS: Final = 10
_HERE: Final = Place("-", "-", "proof")
_ELSEWHERE: Final = Place("-", "-", "another proof")
_log = structlog.get_logger("vault")


class KeyProvider(Protocol):
    """Keeps the root key and wraps others with it; the root itself need not be seen by us.

    Whatever a provider talks to, it fails with `DependencyDown` where trying again may help and
    with `SecretUnavailable` where somebody has to act.
    """

    async def current(self) -> str:
        """Name the root key that wraps now, as far as is known without asking every time."""

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key; the place is authenticated along with it, the result names the root."""

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key, whichever of the root's keys or versions wrapped it."""

    async def renew(self) -> str | None:
        """Make a new root key that wraps from now on, and name it; None: it is made elsewhere."""


def open_provider(settings: Settings) -> KeyProvider:
    """Open the key provider that the settings name; each is imported only when it is chosen.

    Raises:
        SecretUnavailable: There is no usable root key; the service must not start.
    """
    if settings.key_provider == "vault":
        from token_vault.transit import TransitKeyProvider

        return TransitKeyProvider(settings)
    if settings.key_provider == "aws-kms":
        from token_vault.aws_kms import KmsKeyProvider

        return KmsKeyProvider(settings)
    from token_vault.key_file import FileKeyProvider, master_key_path

    if settings.is_production and not settings.key_file_in_production:
        raise SecretUnavailable(
            "A root key in a file is for development: who reads it and the database reads every"
            " secret. Set NHOOD_KEY_PROVIDER=vault or aws-kms, or say"
            " NHOOD_KEY_FILE_IN_PRODUCTION=true if you accept that.",
            code="key_file_in_production",
        )
    provider = FileKeyProvider.read(master_key_path(settings))
    if settings.is_production:
        _log.warning("vault.root_key_in_file", reason="NHOOD_KEY_FILE_IN_PRODUCTION allows it")
    return provider


async def prove(provider: KeyProvider) -> None:
    """Wrap and unwrap once, so that a service without a working root key does not start.

    It must also refuse a wrong place: a service that takes the place and does not authenticate it
    (Vault before 1.13 does not know `associated_data`) would let keys be moved between tenants.

    Raises:
        SecretUnavailable: It cannot be used.
        DependencyDown: It does not answer.
    """
    material = os.urandom(KEY_BYTES)
    wrapped = await provider.wrap(material, _HERE)
    if await provider.unwrap(wrapped, _HERE) != material:
        raise SecretUnavailable(
            "The key provider gives back another key than it was given.", code="bad_key_provider"
        )
    try:
        await provider.unwrap(wrapped, _ELSEWHERE)
    except SecretUnavailable:
        return
    raise SecretUnavailable(
        "The key provider does not bind a key to the place where it belongs, so a row that is"
        " copied to another tenant would open. HashiCorp Vault does from 1.13 on, with a key of"
        " type aes256-gcm96.",
        code="bad_key_provider",
    )


async def check_root(provider: KeyProvider, pool: Pool) -> None:
    """See that the root key in force opens what this database holds.

    Raises:
        SecretUnavailable: `wrong_master_key`: it opens none of the newest workspace keys. Single
            ones that do not open are logged: they must not stop everybody else.
    """
    async with connection(pool) as on:
        cursor = await on.execute(
            "SELECT workspace_id, id, wrapped FROM vault_keys WHERE kind = 'workspace'"
            " ORDER BY created_at DESC, id DESC LIMIT %s",
            (CHECKED_KEYS,),
        )
        rows = await cursor.fetchall()
    failed: SecretUnavailable | None = None
    for workspace, key_id, wrapped in rows:
        try:
            await provider.unwrap(bytes(wrapped), Place(workspace, key_id, "workspace"))
        except SecretUnavailable as error:
            _log.error("vault.key_does_not_open", key=key_id, code=error.code, why=error.detail)
            failed = error
        else:
            return
    if failed is not None:
        raise SecretUnavailable(
            "The root key does not open this database's keys: they are wrapped by"
            f" {key_id_of(bytes(rows[0][2]))}, and the root key in force is"
            f" {await provider.current()}. Bring back the right key, or the right database.",
            code="wrong_master_key",
            detail=failed.public,
        )
