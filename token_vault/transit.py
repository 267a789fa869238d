"""The root key in HashiCorp Vault's transit engine (or OpenBao's): it never leaves there.

A root key's name is `vault:<mount>/<key>:v<version>`. What is wrapped is bound to its place by
`associated_data`, and to the version by Vault itself. The API as of
https://developer.hashicorp.com/vault/api-docs/secret/transit; the policy that the token needs
stands in docs/security.md.

hvac blocks, so it is called on threads, each call bounded in time.
"""

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import hvac
import hvac.exceptions as refusals
import requests

from schemas.errors import DependencyDown, SecretUnavailable
from schemas.settings import Settings
from token_vault.core.envelope import (
    VAULT_TRANSIT,
    Place,
    ciphertext_of,
    key_id_of,
    wrapped_elsewhere,
    wrong_root,
)

# For one request; and for a call in all, waiting for a thread included.
REQUEST_S: Final = 5
CALL_S: Final = 12.0
# How long the newest version is believed to be the newest.
VERSION_KEPT_S: Final = 10.0
_CIPHERTEXT: Final = re.compile(r"vault:v(\d{1,9}):[A-Za-z0-9+/=]+")
_TYPES: Final = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305")


class TransitKeyProvider:
    """Has Vault wrap and unwrap keys."""

    def __init__(self, settings: Settings) -> None:
        self._token_file = Path(settings.vault_token_file) if settings.vault_token_file else None
        self._token = settings.vault_token
        self._mount = settings.vault_mount.strip("/")
        self._key = settings.vault_key
        self._client = hvac.Client(
            url=settings.vault_addr,
            verify=settings.vault_ca_file or True,
            timeout=REQUEST_S,
            namespace=settings.vault_namespace or None,
            allow_redirects=False,
        )
        self._newest: tuple[float, str] | None = None

    async def current(self) -> str:
        """Name the key's newest version."""
        if self._newest is not None and self._newest[0] > time.monotonic():
            return self._newest[1]
        answer = await self._ask(self._client.secrets.transit.read_key)
        data = answer.get("data", {})
        if data.get("type") not in _TYPES or data.get("derived"):
            raise SecretUnavailable(
                f"Vault's transit key {self._key!r} cannot wrap keys: it must be of type"
                " aes256-gcm96 and not derived.",
                code="bad_root_key",
                detail=f"type {str(data.get('type'))[:40]}",
            )
        version = data.get("latest_version") or max(map(int, data.get("keys", {"0": 0})))
        return self._remember(int(version))

    async def wrap(self, material: bytes, place: Place) -> bytes:
        """Encrypt a key with the newest version."""
        answer = await self._ask(
            self._client.secrets.transit.encrypt_data,
            plaintext=base64.b64encode(material).decode(),
            associated_data=_bound(place),
        )
        ciphertext = str(answer.get("data", {}).get("ciphertext", ""))
        found = _CIPHERTEXT.fullmatch(ciphertext)
        if found is None:
            raise _odd_answer()
        name = self._remember(int(found[1]))
        return wrapped_elsewhere(VAULT_TRANSIT, name, ciphertext.encode())

    async def unwrap(self, wrapped: bytes, place: Place) -> bytes:
        """Decrypt a key with the version that wrapped it.

        Raises:
            SecretUnavailable: Another root key wrapped it, it was moved, or Vault refuses.
            DependencyDown: Vault does not answer, or is sealed.
        """
        ciphertext = ciphertext_of(wrapped, VAULT_TRANSIT)
        name = key_id_of(wrapped)
        if name.rpartition(":")[0] != self._name:
            raise wrong_root(name, self._name)
        answer = await self._ask(
            self._client.secrets.transit.decrypt_data,
            ciphertext=ciphertext.decode("ascii", "replace"),
            associated_data=_bound(place),
        )
        try:
            return base64.b64decode(str(answer["data"]["plaintext"]), validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise _odd_answer() from None

    async def renew(self) -> str:
        """Have Vault make a new version of the key; the token's policy must allow it."""
        await self._ask(self._client.secrets.transit.rotate_key)
        self._newest = None
        return await self.current()

    @property
    def _name(self) -> str:
        return f"vault:{self._mount}/{self._key}"

    def _remember(self, version: int) -> str:
        name = f"{self._name}:v{version}"
        self._newest = (time.monotonic() + VERSION_KEPT_S, name)
        return name

    async def _ask(self, call: Callable[..., Any], **more: str) -> dict[str, Any]:
        work = partial(call, name=self._key, mount_point=self._mount, **more)
        try:
            async with asyncio.timeout(CALL_S):
                answer = await asyncio.to_thread(self._with_token, work)
        except (requests.RequestException, TimeoutError) as error:
            raise DependencyDown(
                "HashiCorp Vault, which keeps the root key, does not answer.",
                code="root_key_unreachable",
                detail=type(error).__name__,
            ) from None
        except refusals.VaultError as error:
            raise self._refused(error) from None
        if isinstance(answer, dict):
            return answer
        return {}  # 204, or no JSON: whoever needs a field of it finds none

    def _with_token(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - as hvac gives it
        """Set the token and call; on a thread, since a token file is read here."""
        token = self._token.reveal()
        if self._token_file is not None:
            try:
                token = self._token_file.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SecretUnavailable(
                    f"The token for HashiCorp Vault cannot be read from {self._token_file}:"
                    f" {type(error).__name__}.",
                    code="no_vault_token",
                ) from None
        self._client.token = token
        return work()

    def _refused(self, error: refusals.VaultError) -> DependencyDown | SecretUnavailable:
        """Say what a refusal means; hvac's own text may hold what we sent, so it stays here."""
        told = "; ".join(str(item) for item in error.errors or ())[:200]
        kind = type(error).__name__
        if isinstance(error, refusals.Forbidden | refusals.Unauthorized):
            return SecretUnavailable(
                f"HashiCorp Vault refuses our token for the transit key {self._key!r}: it has ended"
                " or its policy does not allow this (docs/security.md shows the policy).",
                code="root_key_refused",
                detail=kind,
            )
        if isinstance(error, refusals.InvalidPath):
            return SecretUnavailable(
                f"HashiCorp Vault has no transit key {self._key!r} under {self._mount!r}; make one:"
                f" `vault write -f {self._mount}/keys/{self._key}`.",
                code="no_master_key",
                detail=kind,
            )
        if isinstance(error, refusals.InvalidRequest):
            if "key not found" in told:
                return self._refused(refusals.InvalidPath())
            return SecretUnavailable(
                "HashiCorp Vault does not open a wrapped key: it was changed or moved, or the"
                " version that wrapped it is no longer allowed (min_decryption_version).",
                code="secret_damaged",
                detail=kind,
            )
        return DependencyDown(
            "HashiCorp Vault, which keeps the root key, cannot serve just now (sealed, standby or"
            " overloaded).",
            code="root_key_unreachable",
            detail=kind,
        )


def _bound(place: Place) -> str:
    return base64.b64encode(place.encoded()).decode()


def _odd_answer() -> DependencyDown:
    return DependencyDown(
        "What answers as HashiCorp Vault does not speak like it; is NHOOD_VAULT_ADDR right?",
        code="root_key_unreachable",
    )
