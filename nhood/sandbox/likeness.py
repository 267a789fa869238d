"""Answers made in the likeness of a vendor's example: other ids, and what was sent laid over it.

Pure. The example comes from `provider.yaml`; it is never changed itself.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from schemas.events import rfc3339_seconds

# A number below this is a count as often as an id, so it is replaced only where ids stand.
_ID_FROM: Final = 1_000
_LOWER, _UPPER, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"


def overlaid(example: Any, sent: Mapping[str, Any], *, extend: bool = False) -> Any:  # noqa: ANN401 - JSON
    """Lay what was sent over an example answer.

    What was sent under a name that the answer has as well takes its place; where the answer wraps
    the thing (`{message: {…}}`) or the request does (`{ticket: {…}}`), one level is looked into.

    Args:
        example: The answer's body.
        sent: The request's body.
        extend: Add what the example does not have, as vendors do that answer every field.
    """
    if not isinstance(example, Mapping):
        return example
    flat = unwrapped(sent)
    made: dict[str, Any] = {}
    for key, old in example.items():
        if key in sent:
            made[key] = _laid(old, sent[key], extend=extend)
        elif isinstance(old, Mapping):
            made[key] = _laid(old, flat, extend=extend and _is_thing(old, flat))
        elif key in flat:
            made[key] = _laid(old, flat[key], extend=extend)
        else:
            made[key] = old
    if extend and not any(
        isinstance(old, Mapping) and _is_thing(old, flat) for old in made.values()
    ):
        made.update({key: value for key, value in flat.items() if key not in made})
    return made


def unwrapped(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the thing inside a request that wraps it: `{ticket: {…}}`."""
    if len(sent) == 1:
        (inner,) = sent.values()
        if isinstance(inner, Mapping):
            return inner
    return sent


def _is_thing(example: Mapping[str, Any], flat: Mapping[str, Any]) -> bool:
    return not example.keys().isdisjoint(flat)


def _laid(old: Any, new: Any, *, extend: bool) -> Any:  # noqa: ANN401 - JSON
    if isinstance(old, Mapping):
        if not isinstance(new, Mapping):
            return old
        made = {k: _laid(v, new[k], extend=extend) if k in new else v for k, v in old.items()}
        if extend:
            made.update({key: value for key, value in new.items() if key not in made})
        return made
    if old is None or type(old) is type(new):
        return new
    if isinstance(new, str) and isinstance(old, int | float):
        return _read_as(old, new)
    scalars = (str, int, float, bool)
    return new if isinstance(old, scalars) and isinstance(new, (*scalars, type(None))) else old


def _read_as(old: float, text: str) -> Any:  # noqa: ANN401 - JSON
    """Read text, as forms send it, as the kind of value that the example has."""
    if isinstance(old, bool):
        return {"true": True, "false": False}.get(text, text)
    try:
        return type(old)(text)
    except ValueError:
        return text


def merged(old: Any, new: Any) -> Any:  # noqa: ANN401 - JSON
    """Apply an update to what was sent before."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return {**old, **{k: merged(old[k], v) if k in old else v for k, v in new.items()}}
    return new


def renamed(body: Any, names: Mapping[str, tuple[Any, Any]], key: str = "") -> Any:  # noqa: ANN401 - JSON
    """Replace an example's ids by a thing's own, wherever they stand: fields, lists, addresses.

    Args:
        body: JSON.
        names: Per name, the example's value and the new one.
        key: Under which `body` stands.
    """
    if isinstance(body, Mapping):
        return {k: renamed(v, names, k) for k, v in body.items()}
    if isinstance(body, list):
        return [renamed(value, names, key) for value in body]
    if isinstance(body, bool) or not isinstance(body, str | int):
        return body
    for name, (old, new) in names.items():
        if body == old and type(body) is type(old):
            if isinstance(body, str) or body >= _ID_FROM or key == name or key.endswith("id"):
                return new
        elif isinstance(body, str) and "/" in body:
            body = re.sub(rf"(?<=[/=]){re.escape(str(old))}(?![\w-])", lambda _: str(new), body)  # noqa: B023
    return body


def same_type(old: Any, new: Any) -> Any:  # noqa: ANN401 - text or number
    """Write an id as a vendor's answer does: some write a number here and text there."""
    if isinstance(old, str):
        return str(new)
    return int(new) if isinstance(new, str) and new.isdigit() else new


def stamp(moment_s: float) -> str:
    """Write a time, RFC 3339."""
    return rfc3339_seconds(datetime.fromtimestamp(moment_s, UTC))


def alike(example: Any, number: int, salt: str, now_s: int) -> Any:  # noqa: ANN401 - text or number
    """Make an id in the form of an example.

    Args:
        example: `10000`, `"ED-24"`, `"1503435956.000247"`, `"C0EAQDV4Z"`, a UUID …
        number: Counts up with each thing.
        salt: What else tells things apart: provider, account, kind.
        now_s: UTC, seconds since 1970, for ids that are times.
    """
    if isinstance(example, int):
        return example + number
    text = str(example)
    if text.isdigit():
        return str(int(text) + number).zfill(len(text))
    stamp = re.fullmatch(r"(\d{9,})\.(\d+)", text)
    if stamp:
        return f"{now_s}.{number % 1_000_000:0{len(stamp.group(2))}d}"
    counted = re.fullmatch(r"(.*[A-Za-z][-_#/])(\d+)", text)
    if counted:
        return f"{counted.group(1)}{int(counted.group(2)) + number}"
    digest = hashlib.blake2b(f"{salt}/{number}".encode(), digest_size=32).digest()
    kept = min(3, len(text) // 4)
    is_hex = re.fullmatch(r"[0-9a-f-]+", text) is not None
    return text[:kept] + "".join(
        _similar(character, digest[place % 32] + place, is_hex=is_hex)
        for place, character in enumerate(text[kept:])
    )


def _similar(character: str, dice: int, *, is_hex: bool) -> str:
    if is_hex and character != "-":
        return "0123456789abcdef"[dice % 16]
    for letters in (_DIGITS, _LOWER, _UPPER):
        if character in letters:
            return letters[dice % len(letters)]
    return character
