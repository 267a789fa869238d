"""Subscriptions as vendors' APIs make them, played from `triggers.register` of the provider files.

The calls are read backwards, as actions are: where the file puts `${callback_url}`, `${secret}` and
`${subscription.id}` into a request, there they are found; where it reads an answer's id and secret,
there they are put. What is subscribed is what `POST /_sandbox/webhooks` sends to.
"""

import base64
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from nhood.sandbox.plan import Constant, WirePath, constants_fit, dig, nodes
from nhood.sandbox.signing import public_key
from nhood.sandbox.wire_in import Answer, Incoming, json_answer
from schemas.expression import ABSENT, Template
from schemas.provider import ProviderSpec
from schemas.registration import RegistrationSpec, registration_of
from schemas.triggers import triggers_of

Part = Literal["create", "secret", "renew", "remove"]
SUBSCRIPTIONS_MAX: Final = 10_000
_FIRST_ID: Final = 1_000_001


@dataclass(frozen=True, slots=True)
class Subscription:
    """One of an account.

    Attributes:
        secret: What its webhooks are signed with; a private key where the vendor has one.
        renewed: How often.
    """

    id: int
    slug: str
    account: str
    url: str
    secret: str
    renewed: int = 0


@dataclass(frozen=True, slots=True)
class HookCall:
    """One call of `triggers.register`.

    Attributes:
        places: Where in the body something of ours stands, by its reference.
        encoded: Whether the vendor's secrets are told in base 64.
        algorithm: With which it signs.
    """

    part: Part
    method: str
    path: str
    plan: RegistrationSpec
    constants: tuple[Constant, ...]
    places: Mapping[str, WirePath]
    encoded: bool
    algorithm: str

    def fits(self, incoming: Incoming) -> int:
        """Say how well the fixed parts fit, as `Plan.fits` does."""
        return constants_fit(self.constants, incoming)

    def said(self, incoming: Incoming, reference: str) -> Any:  # noqa: ANN401 - JSON values
        """Give what a request has where a reference stands in the file, or ABSENT."""
        place = self.places.get(reference)
        return ABSENT if place is None else dig(incoming.data, place)


def hook_calls(spec: ProviderSpec) -> Iterator[HookCall]:
    """Give the calls by which a vendor's API makes subscriptions."""
    plan, triggers = registration_of(spec), triggers_of(spec)
    if plan is None or triggers is None or spec.triggers is None:
        return
    raw = spec.triggers["register"]
    keys = {signature.key for signature in triggers.signatures}
    parts: tuple[Part, ...] = ("create", "secret", "renew", "remove")
    for part in parts:
        call = raw.get(part) or {}
        if "method" not in call:
            continue
        constants: list[Constant] = []
        places: dict[str, WirePath] = {}
        for path, value in nodes(call.get("json") or {}, ()):
            if not (isinstance(value, str) and "${" in value):
                constants.append(("json", path, value))
            elif value.startswith("${") and value.endswith("}"):
                places[value[2:-1].strip()] = path
        encoded = bool(keys & {"base64", "whsec"})
        algorithm = triggers.signatures[0].algorithm if triggers.signatures else "none"
        yield HookCall(
            part=part,
            method=call["method"],
            path=call["path"],
            plan=plan,
            constants=tuple(constants),
            places=places,
            encoded=encoded,
            algorithm=algorithm,
        )


@dataclass(slots=True)
class Subscriptions:
    """All that there are, in the order in which they were made."""

    _kept: dict[int, Subscription] = field(default_factory=dict)
    _next: int = _FIRST_ID

    def of(self, slug: str) -> list[Subscription]:
        """Give a vendor's."""
        return [one for one in self._kept.values() if one.slug == slug]

    def forget(self, id_: int) -> None:
        """Lose one, as vendors do."""
        del self._kept[id_]

    def play(
        self, slug: str, account: str, call: HookCall, incoming: Incoming, groups: Mapping[str, str]
    ) -> Answer | None:
        """Answer a call; None where there is no such subscription."""
        if call.part == "create":
            return self._create(slug, account, call, incoming)
        found = self._find(slug, account, call, incoming, groups)
        if found is None:
            return None
        if call.part == "remove":
            del self._kept[found.id]
            return Answer(204) if call.method == "DELETE" else json_answer(200, {})
        if call.part == "renew":
            self._kept[found.id] = _renewed(found)
            return json_answer(200, {})
        told = public_key(call.algorithm, found.secret)
        return json_answer(200, _put({}, call.plan.secret, told))

    def _create(self, slug: str, account: str, call: HookCall, incoming: Incoming) -> Answer:
        if call.plan.id is None:  # one per account: asked for again, it is renewed
            known = next((one for one in self.of(slug) if one.account == account), None)
            if known is not None:
                self._kept[known.id] = _renewed(known)
                return json_answer(200, {})
        url, secret = (call.said(incoming, name) for name in ("callback_url", "secret"))
        if call.plan.tells_secret or not isinstance(secret, str):
            drawn = os.urandom(32)
            secret = base64.b64encode(drawn).decode() if call.encoded else drawn.hex()
        if len(self._kept) >= SUBSCRIPTIONS_MAX:
            del self._kept[next(iter(self._kept))]
        made = Subscription(self._next, slug, account, str(url or ""), secret)
        self._next += 1
        self._kept[made.id] = made
        body: Any = _put({}, call.plan.id, made.id)
        if call.plan.ask_secret is None:
            body = _put(body, call.plan.secret, public_key(call.algorithm, secret))
        return json_answer(201, body)

    def _find(
        self,
        slug: str,
        account: str,
        call: HookCall,
        incoming: Incoming,
        groups: Mapping[str, str],
    ) -> Subscription | None:
        mine = [one for one in self.of(slug) if one.account == account]
        if call.plan.id is None:
            return next(iter(mine), None)
        named = call.said(incoming, "subscription.id")
        named = groups.get("id") if named is ABSENT else named
        return next((one for one in mine if str(one.id) == str(named)), None)


def _renewed(one: Subscription) -> Subscription:
    return replace(one, renewed=one.renewed + 1)


def _put(body: Any, template: Template | None, value: object) -> Any:  # noqa: ANN401 - JSON values
    """Put a value where a template such as `${body.results[0].id}` will find it."""
    if template is None or not template.paths:
        return body
    return _laid(body, template.paths[0].steps, value)


def _laid(body: Any, steps: WirePath, value: object) -> Any:  # noqa: ANN401 - JSON values
    if not steps:
        return value
    first, rest = steps[0], steps[1:]
    if isinstance(first, int):
        return [_laid({}, rest, value)]
    around = body if isinstance(body, dict) else {}
    return {**around, first: _laid(around.get(first), rest, value)}
