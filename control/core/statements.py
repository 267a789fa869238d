"""Signed statements of what became of a workspace's events; pure.

    body       canonical JSON (keys in order, no blanks): what is signed, byte for byte
    signature  Ed25519 (RFC 8032) over the body
    chain      each body names the SHA-256 of the one before, and begins where that ended

`check` needs nothing but the statements and the public key: no server, no database.
"""

import base64
import binascii
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.errors import InvalidInput

FORMAT: Final = "nhood-completeness/1"
OUTCOMES: Final = ("matched", "no_match", "duplicate", "rejected", "parked")
ALGORITHM: Final = "Ed25519"

# What was signed, read, and as it is.
_Body = tuple[dict[str, Any], bytes]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of statements.

    Attributes:
        count: How many there are.
        problems: What is wrong, sentence by sentence; none: they are what they say they are.
        without_outcome: Events that the last of them says are missing.
    """

    count: int
    problems: tuple[str, ...]
    without_outcome: int

    @property
    def good(self) -> bool:
        """Whether nobody changed them."""
        return not self.problems


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Write a body in the one form that is signed."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def hash_of(body: bytes) -> str:
    """Give the hash by which the next statement names this one: SHA-256, hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def key_id(public_key: bytes) -> str:
    """Name a public key by itself, so that no other can go by its name."""
    return f"sk_{hashlib.sha256(public_key).hexdigest()[:32]}"


def document(body: bytes, signature: bytes, public_key: bytes) -> dict[str, str]:
    """Write a statement as it is handed out; `statement` is the body as text."""
    return {
        "statement": body.decode(),
        "signature": base64.b64encode(signature).decode(),
        "algorithm": ALGORITHM,
        "key_id": key_id(public_key),
        "public_key": base64.b64encode(public_key).decode(),
    }


def read_documents(data: bytes) -> list[Mapping[str, Any]]:
    """Read a file of one statement, a list, or a page of the API.

    Raises:
        InvalidInput: `bad_statement`.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"This is no JSON: {error}.", code="bad_statement") from error
    if isinstance(found, dict) and "items" in found:
        found = found["items"]
    listed = found if isinstance(found, list) else [found]
    names = ("statement", "signature", "public_key", "key_id")
    for item in listed:
        if not isinstance(item, dict) or not all(isinstance(item.get(n), str) for n in names):
            raise InvalidInput(
                f"A statement is an object with {', '.join(names)}.", code="bad_statement"
            )
    if not listed:
        raise InvalidInput("There is no statement in it.", code="bad_statement")
    return listed


def check(documents: Sequence[Mapping[str, Any]], trusted: Sequence[bytes] = ()) -> Verdict:
    """Check signatures, and the chain where there are several of one workspace.

    Args:
        documents: As `read_documents` gives them, in any order.
        trusted: Public keys that are believed, raw; empty: each brings its own, so that only
            changes by somebody without the private key are found, not a whole forgery.
    """
    problems: list[str] = []
    bodies: list[_Body] = []
    for number, item in enumerate(documents, 1):
        told = _signed(item, trusted)
        if isinstance(told, str):
            problems.append(f"Statement {number}: {told}")
        else:
            bodies.append(told)
    bodies.sort(key=lambda found: (found[0]["workspace_id"], found[0]["sequence"]))
    for earlier, later in itertools.pairwise(bodies):
        if earlier[0]["workspace_id"] == later[0]["workspace_id"]:
            problems += _chained(*earlier, later[0])
    missing = bodies[-1][0]["counts"]["without_outcome"] if bodies else 0
    return Verdict(len(documents), tuple(problems), missing)


def _signed(item: Mapping[str, Any], trusted: Sequence[bytes]) -> _Body | str:
    body = str(item["statement"]).encode()
    try:
        public = base64.b64decode(item["public_key"], validate=True)
        signature = base64.b64decode(item["signature"], validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, body)
        told = orjson.loads(body)
    except InvalidSignature:
        return "the signature is not of this text and key: one of them was changed."
    except (binascii.Error, ValueError):
        return "its key, signature or text cannot be read."
    if trusted and public not in trusted:
        return f"it is signed by {key_id(public)}, which is not a key that you trust."
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return f"it is not of the format {FORMAT}."
    if told["key_id"] != key_id(public):
        return "it names another key than the one that signed it."
    return told, body


def _chained(earlier: Mapping[str, Any], body: bytes, later: Mapping[str, Any]) -> list[str]:
    name = f"Statement {later['sequence']} of {later['workspace_id']}"
    if later["sequence"] != earlier["sequence"] + 1:
        lacking = earlier["sequence"] + 1
        return [f"{name} follows {earlier['sequence']}: {lacking} is not here."]
    problems = []
    if later["previous"] != hash_of(body):
        problems.append(f"{name} names another one before it than the one that is here.")
    ended = {part["partition"]: part["end"] for part in earlier["offsets"]}
    problems += [
        f"{name} leaves out offsets of partition {part['partition']}."
        for part in later["offsets"]
        if part["first"] != ended.get(part["partition"], part["first"])
    ]
    return problems
