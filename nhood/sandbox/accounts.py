"""An account of the sandbox, named in the forms that vendors use; pure."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

ACCOUNT_DEFAULT: Final = "sandbox"
_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def account_forms(slug: str, key: str, scopes: Sequence[str] = ()) -> dict[str, Any]:
    """Give what templates of sandbox.yaml read as `account`; the same for the same key."""
    digest = hashlib.blake2b(f"{slug}/{key}".encode(), digest_size=32).digest()
    code = "".join(_LETTERS[byte % 32] for byte in digest[:15])
    words = digest.hex()
    uuid = "-".join((words[:8], words[8:12], f"4{words[13:16]}", f"8{words[17:20]}", words[20:32]))
    return {
        "key": key,
        "name": "Sandbox" if key == ACCOUNT_DEFAULT else key,
        "slug": re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-"),
        "code": code[:8],
        "code15": code,
        "number": int.from_bytes(digest[:4], "big") + 1_000_000,
        "uuid": uuid,
        "scopes": list(scopes),
    }
