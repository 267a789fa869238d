"""What the control API needs from outside."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from control.core.lint import CatalogueActions
from control.definitions import Definitions
from control.doors import Doors
from control.keys import ApiKeys
from control.passwords import Passwords
from control.sessions import Sessions
from control.signing import RootSealer
from control.store.query import Borrowed
from control.throttle import Throttle
from schemas.provider import Catalogue
from schemas.settings import Secret, Settings
from token_vault.hooks import Hooks
from token_vault.subscriptions import Subscriptions
from wire.bus import Log, Publisher
from wire.clock import mint as mint_id
from wire.clock import now_us
from wire.database import Pool
from wire.usage import Usage

# Requests that wait for an execution at the same time; further ones are answered at once.
WAITERS_MAX: Final = 200


class Sealer(RootSealer, Protocol):
    """Keeps the secrets of workspaces and of the platform itself; the vault is one."""

    async def seal_text(
        self, workspace: str, field: str, text: Secret, on: Borrowed | None = None
    ) -> bytes:
        """Seal a secret; `on` is the transaction in which the workspace was made."""
        ...

    async def open_text(
        self, workspace: str, field: str, sealed: bytes, on: Borrowed | None = None
    ) -> Secret:
        """Open what `seal_text` sealed under the same workspace and field."""
        ...

    async def seal_webhook_secret(
        self, workspace: str, secret: Secret, on: Borrowed | None = None
    ) -> str:
        """Seal a `whsec_…` into the text that goes under `ciphertext`."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that the routes use.

    Attributes:
        clock: UTC, microseconds.
        mint: Makes an id of a kind.
    """

    settings: Settings
    pool: Pool
    publisher: Publisher
    log: Log
    catalogue: Catalogue
    sealer: Sealer
    keys: ApiKeys
    sessions: Sessions
    doors: Doors
    passwords: Passwords
    throttle: Throttle
    definitions: Definitions
    actions: CatalogueActions
    subscriptions: Subscriptions
    usage: Usage
    clock: Callable[[], int] = now_us
    mint: Callable[[str], str] = mint_id
    waiters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WAITERS_MAX))

    @property
    def hooks(self) -> Hooks:
        """Addresses for vendors' webhooks."""
        return self.subscriptions.hooks
