"""What came in: the last requests with their answers, and how often each effect was asked for."""

import hashlib
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace
from typing import Any, Final

from nhood.sandbox.wire_in import Answer, Incoming
from schemas.provider_auth import IN_URL

KEPT_MAX: Final = 5_000
KEYS_MAX: Final = 200_000
BODY_BYTES_MAX: Final = 16 * 1024
_HIDDEN: Final = frozenset({"authorization", "cookie", "x-api-key", "x-auth-token", IN_URL})
_SECRETS: Final = frozenset(
    (
        *("client_secret", "code", "code_verifier", "refresh_token", "access_token", "token"),
        *("password", "api_key", "assertion", "secret", "clientState", "http_auth_password"),
    )
)
_ASIDE: Final = ("oauth.", "hooks.")  # of which no step tells
# What answers these tells secrets.
_TELLING: Final = frozenset({"oauth.token", "hooks.create", "hooks.secret"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and its answer."""

    number: int
    at: float
    slug: str
    action: str
    account: str | None
    key: str
    incoming: Incoming
    answer: Answer | None
    fault: str | None

    def shown(self) -> dict[str, Any]:
        """Give what may be seen: without tokens, codes and secrets."""
        answer = self.answer
        return {
            "number": self.number,
            "at": self.at,
            "provider": self.slug,
            "action": self.action,
            "account": self.account,
            "effect_key": self.key,
            "method": self.incoming.method,
            "path": self.incoming.path,
            "query": _without_secrets(self.incoming.query_data()),
            "headers": {
                name: "***" if name in _HIDDEN else value
                for name, value in self.incoming.headers.items()
            },
            "body": _body(self.incoming),
            "status": answer.status if answer else None,
            "answer": _text(answer) if answer and self.action not in _TELLING else None,
            "fault": self.fault,
        }


class Received:
    """Keeps the last `KEPT_MAX` requests, and counts of all."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT_MAX)
        self._keys: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._actions: Counter[tuple[str, str]] = Counter()
        self._number = 0

    def add(  # noqa: PLR0913 - what there is to note
        self,
        incoming: Incoming,
        *,
        at: float,
        action: str,
        account: str | None,
        answer: Answer | None,
        key: str = "",
        fault: str | None = None,
    ) -> None:
        """Note a request.

        Args:
            incoming: The request.
            at: UTC, seconds since 1970.
            action: What it was taken for.
            account: Whose token it carried.
            answer: None where the connection was broken off.
            key: The vendor's idempotency key, if one came.
            fault: The fault that was played.
        """
        self._number += 1
        key = key or _fingerprint(incoming)
        if len(incoming.body) > BODY_BYTES_MAX:
            incoming = incoming.without_body()
        if answer is not None and len(answer.body) > BODY_BYTES_MAX:
            answer = replace(answer, body=answer.body[:BODY_BYTES_MAX])
        entry = Entry(
            self._number, at, incoming.slug, action, account, key, incoming, answer, fault
        )
        self._entries.append(entry)
        self._actions[incoming.slug, action] += 1
        if answer is not None and answer.status < 400 and not action.startswith(_ASIDE):
            place = (incoming.slug, key)
            self._keys[place] = self._keys.get(place, 0) + 1
            if len(self._keys) > KEYS_MAX:
                self._keys.popitem(last=False)

    def since(self, slug: str | None, number: int, limit: int) -> list[dict[str, Any]]:
        """Give requests after a number, oldest first."""
        found = (e for e in self._entries if e.number > number and slug in (None, e.slug))
        return [entry.shown() for entry, _ in zip(found, range(limit), strict=False)]

    def last(self, limit: int) -> list[dict[str, Any]]:
        """Give the last requests, newest first."""
        newest = [self._entries[-place] for place in range(1, min(limit, len(self._entries)) + 1)]
        return [entry.shown() for entry in newest]

    def counts(self, slug: str | None) -> dict[str, Any]:
        """Say how many requests there were, by action, and which effects came more than once."""
        actions = {
            f"{provider}.{action}": number
            for (provider, action), number in self._actions.items()
            if slug in (None, provider)
        }
        keys = {k: n for (provider, k), n in self._keys.items() if slug in (None, provider)}
        return {
            "requests": sum(actions.values()),
            "by_action": actions,
            "effects": len(keys),
            "repeated": {key: number for key, number in keys.items() if number > 1},
        }

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._keys.clear()
        self._actions.clear()


def _fingerprint(incoming: Incoming) -> str:
    """Name an effect by what was asked for, where no key came."""
    text = f"{incoming.method} {incoming.path}?{incoming.query}\n".encode() + incoming.body
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _body(incoming: Incoming) -> Any:  # noqa: ANN401 - JSON
    data = incoming.data
    if data is None:
        return f"{len(incoming.body)} bytes" if incoming.body else None
    return _without_secrets(data)


def _without_secrets(data: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(data, dict):
        return {k: "***" if k in _SECRETS else _without_secrets(v) for k, v in data.items()}
    return [_without_secrets(item) for item in data] if isinstance(data, list) else data


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace")
