"""What vendors say of an account, checked: tokens go to hosts that are made of it."""

from collections.abc import Mapping

from schemas.errors import DependencyDown
from schemas.provider import ProviderSpec
from schemas.settings import Settings
from token_vault import endpoints


def accept_variables(
    spec: ProviderSpec,
    mode: str,
    known: Mapping[str, str],
    told: Mapping[str, str],
    settings: Settings,
) -> dict[str, str]:
    """Lay what a vendor says of an account over what is known.

    Raises:
        DependencyDown: `bad_account`: it says something that this provider cannot mean.
    """
    good, bad = sift_variables(spec, mode, told, settings)
    if bad:
        raise _bad_account(spec, bad)
    return {**known, **good}


def require_whole(spec: ProviderSpec, known: Mapping[str, str]) -> None:
    """Refuse an account of which something is not known that URLs need.

    Raises:
        DependencyDown: `bad_account`.
    """
    needed = [
        name
        for name, variable in spec.auth.variables.items()
        if variable.default is None and name not in known
    ]
    if needed:
        raise _bad_account(spec, needed)


def _bad_account(spec: ProviderSpec, names: list[str]) -> DependencyDown:
    return DependencyDown(
        f"{spec.name} did not tell what is needed of the account ({', '.join(names)}), or something"
        " that cannot be right; it was not connected.",
        code="bad_account",
    )


def sift_variables(
    spec: ProviderSpec, mode: str, variables: Mapping[str, str], settings: Settings
) -> tuple[dict[str, str], list[str]]:
    """Check what an answer says of the account: tokens go to hosts made of these.

    Returns:
        The good ones, and the names of those that this provider cannot mean.
    """
    good, bad = {}, []
    for name, value in variables.items():
        variable = spec.auth.variables.get(name)
        checked = variable is not None and (variable.pattern is not None or _is_plain(value))
        if (checked and variable is not None and variable.accepts(value)) or (
            endpoints.is_own_host(value, spec, mode, settings)
        ):
            good[name] = value
        else:
            bad.append(name)
    return good, bad


def _is_plain(value: str) -> bool:
    """Say whether a value can stand in a path without changing its way."""
    allowed = value.replace("-", "").replace("_", "").replace(".", "")
    return allowed.isascii() and allowed.isalnum() and len(value) <= 256
