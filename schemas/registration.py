"""How a vendor's API makes, renews and removes a subscription: `triggers.register`, compiled.

    create    {method, path, json, id, secret?}    the call that subscribes our address
    secret    {method, path, value}                where the vendor tells its secret in a call apart
    renew     {method, path, json, every_seconds}  before it ends; without a method: created again
    remove    {method, path, json}
    life_seconds                                   of one, where we say how long (`expires_at`)

Templates read `params` (what the customer wants told: a repository, names of events),
`connection`, `callback_url`, `secret` (ours, for vendors that take one), `expires_at` (RFC 3339)
and `subscription` (`id`, as the vendor gave it); what reads an answer, `body`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.errors import InvalidInput
from schemas.expression import Template, Tree
from schemas.provider import ProviderSpec

_PARTS: Final = frozenset({"create", "secret", "renew", "remove", "life_seconds"})
# A subscription of which the file only says how long it lives is renewed after this share of it.
_SHARE: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call; the path is below the API's address."""

    method: str
    path: Template
    json: Tree | None


@dataclass(frozen=True, slots=True)
class RegistrationSpec:
    """The subscriptions of one vendor.

    Attributes:
        params: The params that the customer gives, all of them needed.
        id: Where the answer names the subscription; None: there is one per account, without a name.
        secret: Where the answer of `create`, or else of `ask_secret`, tells the vendor's secret.
        renew: None: it is created again, where `renew_s` is there.
        renew_s: After how many seconds; None: it never ends.
        life_s: For `expires_at`.
    """

    create: CallSpec
    params: tuple[str, ...]
    id: Template | None
    secret: Template | None
    ask_secret: CallSpec | None
    renew: CallSpec | None
    renew_s: int | None
    life_s: int | None
    remove: CallSpec | None

    @property
    def tells_secret(self) -> bool:
        """Whether the vendor makes the secret."""
        return self.secret is not None


def registration_of(spec: ProviderSpec) -> RegistrationSpec | None:
    """Give how a provider's subscriptions are made by its API; None where they are by hand.

    Raises:
        InvalidInput: `bad_provider`; the file says what cannot be.
    """
    data = (spec.triggers or {}).get("register")
    if not isinstance(data, Mapping):
        return None
    try:
        return _read(data)
    except (InvalidInput, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{spec.slug}/provider.yaml: triggers.register cannot be used: {error}",
            code="bad_provider",
        ) from error


def _read(data: Mapping[str, Any]) -> RegistrationSpec:
    unknown = sorted(set(data) - _PARTS)
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not known")
    create, apart, renew = data["create"], data.get("secret"), data.get("renew") or {}
    told = create.get("secret") or (apart or {}).get("value")
    life = data.get("life_seconds")
    every = renew.get("every_seconds") or (int(life * _SHARE) if life else None)
    call = _call(create)
    return RegistrationSpec(
        create=call,
        params=_params(call),
        id=Template(create["id"]) if create.get("id") else None,
        secret=Template(told) if told else None,
        ask_secret=_call(apart) if apart else None,
        renew=_call(renew) if "method" in renew else None,
        renew_s=every,
        life_s=life,
        remove=_call(data["remove"]) if data.get("remove") else None,
    )


def _call(data: Mapping[str, Any]) -> CallSpec:
    body = data.get("json")
    return CallSpec(data["method"], Template(data["path"]), None if body is None else Tree(body))


def _params(call: CallSpec) -> tuple[str, ...]:
    paths = (*call.path.paths, *(call.json.paths if call.json is not None else ()))
    found = (str(path.steps[0]) for path in paths if path.root == "params" and path.steps)
    return tuple(dict.fromkeys(found))
