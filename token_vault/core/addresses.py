"""Checks a developer's id of a customer and the addresses that browsers are sent to; pure."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from schemas.errors import Problem

URL_CHARS_MAX: Final = 2_000
USER_ID_CHARS_MAX: Final = 200
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def check_user_and_urls(
    user_id: str, urls: Mapping[str, str | None], *, is_production: bool
) -> list[Problem]:
    """Check a developer's id of a customer, and addresses that browsers are to be sent to.

    Args:
        user_id: The id.
        urls: By the name of their field; None: not given.
        is_production: Then plain http is for localhost only.
    """
    problems = web_problems(urls, is_production=is_production)
    if not 0 < len(user_id) <= USER_ID_CHARS_MAX:
        text = f"must have 1 to {USER_ID_CHARS_MAX} characters"
        problems.append(Problem("user_id", text, "Give your own id of this customer.", "bad_value"))
    return problems


def web_problems(urls: Mapping[str, str | None], *, is_production: bool) -> list[Problem]:
    """Check addresses that browsers are to be sent to; by the name of their field."""
    problems = []
    for place, url in urls.items():
        if url is not None and not _is_web_address(url, is_production=is_production):
            mend = "Give an absolute https:// address without a fragment (http:// on localhost)."
            problems.append(Problem(place, "is not an address we can send to", mend, "bad_url"))
    return problems


def _is_web_address(url: str, *, is_production: bool) -> bool:
    try:
        parts = urlsplit(url)
        local = parts.hostname in _LOCAL
    except ValueError:
        return False
    if len(url) > URL_CHARS_MAX or parts.fragment or "#" in url or "@" in parts.netloc:
        return False
    if any(c.isspace() or ord(c) < 0x20 or c == "\\" for c in url) or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (local or not is_production))
