"""Where a provider is reached: the vendor in live mode, the sandbox in test mode.

In live mode the settings can say another place (`NHOOD_PROVIDER_<SLUG>_…_URL`). Everybody who calls
a vendor asks here, so that a test key can never reach a real account. Specs are to be loaded
without overrides: whether they apply depends on the mode.
"""

import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from schemas.errors import InvalidInput
from schemas.expression import Template
from schemas.provider import ProviderSpec, sandbox_address
from schemas.settings import ProviderOverride, Settings

_NONE = ProviderOverride()


def base_url(
    spec: ProviderSpec, mode: str, variables: Mapping[str, Any], settings: Settings
) -> str:
    """Give the API's address for one account, without a slash at the end.

    Args:
        spec: The provider.
        mode: `live` or `test`.
        variables: The connection's.
        settings: For the sandbox's address and the overrides.

    Raises:
        InvalidInput: A variable that the address needs is not there.
    """
    return _address(spec, spec.api.base_url, "base_url", mode, variables, settings).rstrip("/")


def authorize_url(
    spec: ProviderSpec, mode: str, variables: Mapping[str, Any], settings: Settings
) -> str:
    """Give the consent page's address for one account."""
    template = spec.auth.authorize_url
    return _address(spec, template, "authorize_url", mode, variables, settings)


def token_url(
    spec: ProviderSpec, mode: str, variables: Mapping[str, Any], settings: Settings
) -> str:
    """Give the address where codes are exchanged."""
    return _address(spec, spec.auth.token_url, "token_url", mode, variables, settings)


def refresh_url(
    spec: ProviderSpec, mode: str, variables: Mapping[str, Any], settings: Settings
) -> str:
    """Give the address where tokens are refreshed."""
    template = spec.auth.refresh_url or spec.auth.token_url
    return _address(spec, template, "token_url", mode, variables, settings)


def resolve(
    url: str,
    spec: ProviderSpec,
    mode: str,
    settings: Settings,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Give the address to call instead of a vendor's own.

    In test mode the sandbox's. In live mode an address on the API's usual host moves along when the
    base URL is overridden; any other stays. A host that is made of the account's variables is known
    by these.
    """
    if mode == "test":
        return sandbox_address(url, settings.sandbox_base, spec.slug)
    override = settings.providers.get(spec.slug, _NONE).base_url
    known = {"connection": spec.connection(variables or {})}
    base = spec.api.base_url.find(known)
    usual = urlsplit(base if isinstance(base, str) else "")
    parts = urlsplit(url)
    if override and usual.netloc and (parts.scheme, parts.netloc) == (usual.scheme, usual.netloc):
        instead = urlsplit(override)
        return urlunsplit((instead.scheme, instead.netloc, parts.path, parts.query, ""))
    return url


def is_own_host(url: str, spec: ProviderSpec, mode: str, settings: Settings) -> bool:
    """Say whether the operator named this address's host: the sandbox or an override."""
    override = settings.providers.get(spec.slug, _NONE)
    named = [override.base_url, override.authorize_url, override.token_url]
    if mode == "test":
        named = [settings.sandbox_base]
    return urlsplit(url).netloc in {urlsplit(item).netloc for item in named if item}


def _address(
    spec: ProviderSpec,
    template: Template | None,
    part: str,
    mode: str,
    variables: Mapping[str, Any],
    settings: Settings,
) -> str:
    if template is None:
        raise InvalidInput(
            f"{spec.name} is not connected by OAuth; it takes"
            f" {', '.join(item.name for item in spec.auth.credentials) or 'no credentials'};"
            " give them to POST /api/v1/workspaces/{workspace_id}/connections.",
            code="no_oauth",
        )
    if mode != "test":
        instead = getattr(settings.providers.get(spec.slug, _NONE), part)
        template = _compiled(instead) if instead else template
    url = template.text({"connection": spec.connection(variables)})
    return sandbox_address(url, settings.sandbox_base, spec.slug) if mode == "test" else url


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> Template:
    return Template(text)
