"""Which OAuth app speaks for us: the sandbox's in test mode, the operator's in live mode.

The workspace's own app comes in here, before the operator's, without its callers changing.
"""

from typing import Final

from schemas.errors import Conflict
from schemas.provider import ProviderSpec
from schemas.settings import Secret, Settings
from token_vault.core.grants import App

TEST_APP: Final = App("sandbox_client", Secret("sandbox_secret"))
"""What the sandbox knows us by; it opens nothing but the sandbox."""


class Apps:
    """Finds the app for a workspace and provider."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def get(self, workspace: str, spec: ProviderSpec, mode: str) -> App:
        """Give the app.

        Raises:
            Conflict: Live mode, and nobody has set one; says what to set.
        """
        if mode == "test":
            return TEST_APP
        override = self._settings.providers.get(spec.slug)
        if override is None or not override.client_id:
            raise _missing(spec, "CLIENT_ID")
        if override.client_secret is None and spec.auth.client_auth != "none":
            raise _missing(spec, "CLIENT_SECRET")
        return App(override.client_id, override.client_secret or Secret(""))


def _missing(spec: ProviderSpec, what: str) -> Conflict:
    name = f"NHOOD_PROVIDER_{spec.slug.upper()}"
    return Conflict(
        f"Live connections to {spec.name} need an OAuth app, and {name}_{what} is not set: register"
        f" one at {spec.name}, set {name}_CLIENT_ID and {name}_CLIENT_SECRET and start again."
        " With a test key the sandbox needs none.",
        code="oauth_app_missing",
    )
