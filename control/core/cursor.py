"""Cursors: where the next page of a list begins, as one opaque word.

A cursor holds the sort key of the last item shown and a mark of the list that it was made for, so
one from another list, from other filters or from somebody's keyboard is refused and not guessed at.
"""

import base64
import binascii
import hashlib
from typing import Final

import orjson

from schemas.errors import InvalidInput, Problem

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 200
CURSOR_MAX: Final = 512
_MARK_BYTES: Final = 9


def write_cursor(kind: str, filters: object, after: tuple[int, str]) -> str:
    """Make the cursor of the page that follows.

    Args:
        kind: Name of the list.
        filters: What the list was asked for, as JSON values.
        after: Sort key of the last item: microseconds and id.
    """
    body = _mark(kind, filters) + orjson.dumps(after)
    return base64.urlsafe_b64encode(body).rstrip(b"=").decode()


def read_cursor(kind: str, filters: object, cursor: str) -> tuple[int, str]:
    """Give the sort key back.

    Raises:
        InvalidInput: `bad_cursor`; it was made by nobody, or for another list.
    """
    try:
        body = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        key = orjson.loads(body[_MARK_BYTES:])
    except (binascii.Error, ValueError):
        raise _bad("is not one that we gave out") from None
    if body[:_MARK_BYTES] != _mark(kind, filters):
        raise _bad("belongs to another list or other filters")
    match key:
        case [int(micros), str(identity)] if not isinstance(micros, bool):
            return micros, identity
    raise _bad("is not one that we gave out")


def _mark(kind: str, filters: object) -> bytes:
    text = orjson.dumps([kind, filters], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).digest()[:_MARK_BYTES]


def _bad(what: str) -> InvalidInput:
    problem = Problem(
        "query.cursor",
        what,
        "Take `next_cursor` of the page before and leave the other parameters as they were, or"
        " begin again without a cursor.",
        "bad_cursor",
    )
    return InvalidInput(f"The cursor {what}.", problems=[problem], code="bad_cursor")
