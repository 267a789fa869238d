"""Seals and opens with the right key: an end customer's for credentials, else the workspace's."""

import os
from typing import Final

from schemas.errors import SecretUnavailable
from schemas.settings import Secret
from token_vault.core.envelope import NONCE_BYTES, Place, key_id_of, open_sealed, seal
from token_vault.core.grants import Held, from_stored, to_stored
from token_vault.keys import Borrowed, KeyRing
from token_vault.store import Connection

_CREDENTIAL: Final = "credential"
# Stands for the workspace itself where a secret belongs to nothing smaller.
_WORKSPACE_ITSELF: Final = "-"


class Sealer:
    """Seals and opens; knows which key a secret is for."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    async def seal_credential(
        self,
        workspace: str,
        connection_id: str,
        user_id: str,
        held: Held,
        on: Borrowed | None = None,
    ) -> bytes:
        """Seal a grant under its end customer's key."""
        key = await self._keys.user_key(workspace, user_id, on)
        place = Place(workspace, connection_id, _CREDENTIAL)
        return seal(key, to_stored(held), place, os.urandom(NONCE_BYTES))

    async def open_credential(self, row: Connection) -> Held:
        """Open a connection's grant.

        Raises:
            SecretUnavailable: There is none, its key was destroyed, or it was tampered with.
        """
        if row.credential is None:
            raise SecretUnavailable(
                f"The connection {row.id} holds no credential; connect it again.",
                code="no_credential",
            )
        key = await self._keys.by_id(row.workspace_id, key_id_of(row.credential))
        place = Place(row.workspace_id, row.id, _CREDENTIAL)
        return from_stored(open_sealed(key, row.credential, place), row.scopes, row.variables)

    async def seal_text(
        self, workspace: str, field: str, text: Secret, on: Borrowed | None = None
    ) -> bytes:
        """Seal a secret of the workspace itself.

        Args:
            workspace: It must be in the database (as seen by `on`).
            field: What it is: it opens only under the same name.
            text: The secret.
            on: The caller's transaction, where the workspace was made in it.
        """
        key = await self._keys.workspace_key(workspace, on)
        place = Place(workspace, _WORKSPACE_ITSELF, field)
        return seal(key, text.reveal().encode(), place, os.urandom(NONCE_BYTES))

    async def open_text(
        self, workspace: str, field: str, sealed: bytes, on: Borrowed | None = None
    ) -> Secret:
        """Open what `seal_text` sealed.

        Raises:
            SecretUnavailable: Another workspace's, another field's, or tampered with.
        """
        key = await self._keys.by_id(workspace, key_id_of(sealed), on)
        place = Place(workspace, _WORKSPACE_ITSELF, field)
        return Secret(open_sealed(key, sealed, place).decode())
