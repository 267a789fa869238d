"""The sandbox's OAuth server: codes, tokens, rotation, revocation; journalled, so it survives.

A connection made in test mode must still work after a restart, so each grant is a line of a file.
Codes live ten minutes and only in memory. A code or refresh token that is used a second time kills
what came of it (RFC 6749 §4.1.2, RFC 9700 §4.14.2).
"""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import orjson

CODE_LIFE_S: Final = 600
CODES_MAX: Final = 10_000
GRANTS_MAX: Final = 50_000
# Retired refresh tokens that are remembered per grant, to notice their reuse.
RETIRED_MAX: Final = 20


@dataclass(slots=True)
class Grant:
    """What one consent gave.

    Attributes:
        account: Key of the account that it opens.
        access, refresh: Digests of the tokens that are good now; the tokens are kept nowhere.
        expires_at: Of the access token: UTC, seconds since 1970; None: it does not end.
    """

    id: str
    slug: str
    account: str
    scopes: list[str]
    access: str = ""
    refresh: str | None = None
    expires_at: float | None = None
    retired: list[str] = field(default_factory=list)
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """A code that waits to be exchanged."""

    slug: str
    account: str
    redirect_uri: str
    scopes: tuple[str, ...]
    challenge: str | None
    expires_at: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Freshly made tokens, in clear for the one answer that carries them."""

    grant: Grant
    access: str = field(repr=False)
    refresh: str | None = field(repr=False)


class GrantBook:
    """Keeps codes and grants of all providers."""

    def __init__(self, journal: Path | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._journal = journal
        self._codes: OrderedDict[str, Code] = OrderedDict()
        self._used_codes: OrderedDict[str, str] = OrderedDict()
        self._grants: OrderedDict[str, Grant] = OrderedDict()
        self._by_access: dict[str, Grant] = {}
        self._by_refresh: dict[str, Grant] = {}
        if journal is not None:
            self._replay(journal)

    def new_code(self, code: Code) -> str:
        """Keep a consent and give the code for it."""
        text = secrets.token_urlsafe(24)
        self._codes[text] = code
        if len(self._codes) > CODES_MAX:
            self._codes.popitem(last=False)
        return text

    def use_code(self, text: str) -> Code | None:
        """Give the consent of a code, once; a second use revokes what the first one got."""
        code = self._codes.pop(text, None)
        if code is None:
            grant = self._grants.get(self._used_codes.get(text, ""))
            if grant is not None:
                self.revoke(grant)
            return None
        return code if code.expires_at > self._clock() else None

    def issue(
        self, code: str, consent: Code, prefix: str, life_s: int | None, *, refresh: bool
    ) -> Tokens:
        """Make a grant of a code."""
        grant = Grant(secrets.token_hex(8), consent.slug, consent.account, list(consent.scopes))
        self._used_codes[code] = grant.id
        if len(self._used_codes) > CODES_MAX:
            self._used_codes.popitem(last=False)
        self._grants[grant.id] = grant
        if len(self._grants) > GRANTS_MAX:
            _, oldest = self._grants.popitem(last=False)
            self._drop(oldest)
        return self._give(grant, prefix, life_s, new_refresh=refresh)

    def find_refresh(self, token: str) -> tuple[Grant, bool] | None:
        """Find the grant of a refresh token and say whether the token is still good."""
        digest = _digest(token)
        grant = self._by_refresh.get(digest)
        if grant is None:
            return None
        return grant, grant.refresh == digest and not grant.revoked

    def renew(self, grant: Grant, prefix: str, life_s: int | None, *, rotate: bool) -> Tokens:
        """Give a grant a new access token, and where it rotates a new refresh token."""
        return self._give(grant, prefix, life_s, new_refresh=rotate)

    def find_access(self, token: str) -> Grant | None:
        """Find the grant of an access token that is good."""
        grant = self._by_access.get(_digest(token))
        if grant is None or grant.revoked:
            return None
        if grant.expires_at is not None and grant.expires_at <= self._clock():
            return None
        return grant

    def of(self, slug: str) -> list[Grant]:
        """Give the grants of a provider that are not taken back."""
        return [g for g in self._grants.values() if g.slug == slug and not g.revoked]

    def revoke(self, grant: Grant) -> None:
        """Take a grant back."""
        grant.revoked = True
        self._write(grant)

    def revoke_token(self, token: str) -> bool:
        """Take back the grant of an access or refresh token; False where there is none."""
        digest = _digest(token)
        grant = self._by_access.get(digest) or self._by_refresh.get(digest)
        if grant is None or grant.revoked:
            return False
        self.revoke(grant)
        return True

    def expire(self, slug: str, account: str | None) -> int:
        """End the access tokens of a provider (and account) now; give how many."""
        found = [
            grant
            for grant in self._grants.values()
            if grant.slug == slug and account in (None, grant.account) and not grant.revoked
        ]
        for grant in found:
            grant.expires_at = self._clock()
            self._write(grant)
        return len(found)

    def _give(self, grant: Grant, prefix: str, life_s: int | None, *, new_refresh: bool) -> Tokens:
        access = prefix + secrets.token_urlsafe(32)
        self._by_access.pop(grant.access, None)
        grant.access = _digest(access)
        self._by_access[grant.access] = grant
        refresh = None
        if new_refresh:
            refresh = secrets.token_urlsafe(32)
            if grant.refresh is not None:
                grant.retired.append(grant.refresh)
                for digest in grant.retired[:-RETIRED_MAX]:
                    self._by_refresh.pop(digest, None)
                del grant.retired[:-RETIRED_MAX]
            grant.refresh = _digest(refresh)
            self._by_refresh[grant.refresh] = grant
        grant.expires_at = None if life_s is None else self._clock() + life_s
        self._write(grant)
        return Tokens(grant, access, refresh)

    def _drop(self, grant: Grant) -> None:
        self._by_access.pop(grant.access, None)
        for digest in (*grant.retired, grant.refresh or ""):
            self._by_refresh.pop(digest, None)

    def _write(self, grant: Grant) -> None:
        if self._journal is not None:
            with self._journal.open("ab") as file:
                file.write(orjson.dumps(asdict(grant)) + b"\n")

    def _replay(self, journal: Path) -> None:
        """Read the journal and write it anew with one line a grant."""
        journal.parent.mkdir(parents=True, exist_ok=True)
        for grant in _read(journal):
            self._grants.pop(grant.id, None)
            self._grants[grant.id] = grant
        kept = [g for g in self._grants.values() if not g.revoked][-GRANTS_MAX:]
        self._grants = OrderedDict((grant.id, grant) for grant in kept)
        for grant in kept:
            self._by_access[grant.access] = grant
            for digest in (*grant.retired, grant.refresh):
                if digest:
                    self._by_refresh[digest] = grant
        fresh = journal.with_suffix(".new")
        fresh.write_bytes(b"".join(orjson.dumps(asdict(grant)) + b"\n" for grant in kept))
        fresh.replace(journal)


def _read(journal: Path) -> Sequence[Grant]:
    if not journal.is_file():
        return ()
    grants = []
    for line in journal.read_bytes().splitlines():
        try:
            grants.append(Grant(**orjson.loads(line)))
        except (orjson.JSONDecodeError, TypeError):
            continue  # the last line of a process that was killed
    return grants


def _digest(token: str) -> str:
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()
