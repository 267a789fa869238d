"""Values in the paths of addresses; pure."""

from typing import Final
from urllib.parse import quote

from schemas.errors import InvalidInput, Problem

_DOTS: Final = frozenset({"", ".", ".."})
_BARE: Final = "!$&'()*,;:=@"
"""What stands as it is in a path's segment (RFC 3986 §3.3). The HTTP client would write it so in
any case, and then a signature over the address would be one over another address."""


def path_segment(value: str) -> str:
    """Encode a value as one segment of a URL's path.

    Raises:
        InvalidInput: Where the value would name another place (empty, `.` or `..`).
    """
    if value.strip() in _DOTS:
        problem = Problem(
            "params", f"{value!r} cannot name anything in an address", code="bad_value"
        )
        raise InvalidInput(
            f"{value!r} cannot name anything in an address.",
            problems=[problem],
            code="invalid_params",
        )
    return quote(value, safe=_BARE)
