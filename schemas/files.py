"""Files between steps: what stands for one in params and outputs, and what a body is made of; pure.

Content never rides through a record (claim check): an action that downloads puts it into the file
store and gives `{"file_id": "fil_…", "name", "content_type", "size", "sha256"}`, an action that
uploads takes that, or the id alone, or a small content as it is: `{"text": "…", "name": "a.txt"}`
or `{"base64": "…", "name": "a.png"}`.
"""

import base64
import binascii
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from schemas.errors import InvalidInput

FILE: Final = "file"
"""How a param is declared that takes one: `type: file`; after reading, its `format`."""

ID: Final = re.compile(r"fil_[0-9a-hjkmnp-tv-z]{26}")
NAME_MAX: Final = 255
INLINE_MAX: Final = 262_144
"""Characters of a content that stands in the params themselves."""

UNKNOWN_TYPE: Final = "application/octet-stream"
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[ -~]{1,200})?")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")
_NAMED: Final = {
    "name": {"type": "string", "minLength": 1, "maxLength": NAME_MAX},
    "content_type": {"type": "string", "maxLength": NAME_MAX},
}
SCHEMA: Final[Mapping[str, Any]] = {
    "format": FILE,
    "anyOf": [
        {"type": "string", "pattern": "^fil_[0-9a-z]{26}$"},
        {
            "type": "object",
            "required": ["file_id"],
            "properties": {"file_id": {"type": "string", "pattern": "^fil_[0-9a-z]{26}$"}},
        },
        *(
            {
                "type": "object",
                "required": [kind, "name"],
                "additionalProperties": False,
                "properties": {kind: {"type": "string", "maxLength": INLINE_MAX}, **_NAMED},
            }
            for kind in ("text", "base64")
        ),
    ],
}
"""JSON Schema of what a `type: file` param takes."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store.

    Attributes:
        content_type: As the vendor or the uploader told it.
        size: Bytes.
        sha256: Of the content, hexadecimal.
    """

    file_id: str
    name: str
    content_type: str
    size: int
    sha256: str

    def told(self) -> dict[str, Any]:
        """Give what stands for it in outputs and params."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body out of bytes and files.

    Attributes:
        content_type: Of the whole.
        pieces: One after the other.
    """

    content_type: str
    pieces: tuple[bytes | StoredFile, ...]

    def content(self) -> bytes | None:
        """Give the body where it is all here; None where a part of it is in the store."""
        here = [piece for piece in self.pieces if isinstance(piece, bytes)]
        return b"".join(here) if len(here) == len(self.pieces) else None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(p.size if isinstance(p, StoredFile) else len(p) for p in self.pieces)


def declared(schema: Mapping[str, Any]) -> frozenset[str]:
    """Name the params that take files."""
    properties = schema["properties"]
    return frozenset(name for name, one in properties.items() if one.get("format") == FILE)


def expanded(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `type: file` in an action's params as the JSON Schema that it stands for."""
    properties = {
        name: {**SCHEMA, **{k: v for k, v in one.items() if k != "type"}}
        if one.get("type") == FILE
        else one
        for name, one in schema["properties"].items()
    }
    return {**schema, "properties": properties}


def wanted(value: object) -> str | None:
    """Give the id that a param refers to; None where its content stands in it."""
    found = value.get("file_id") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) else None


def content_of(value: Mapping[str, Any]) -> bytes:
    """Give the content that stands in a param itself.

    Raises:
        InvalidInput: `invalid_params`; it is not base 64.
    """
    if "text" in value:
        return str(value["text"]).encode()
    try:
        return base64.b64decode(value["base64"], validate=True)
    except binascii.Error as error:
        raise InvalidInput(f"The file is not base 64: {error}.", code="invalid_params") from None


def known(value: object) -> Mapping[str, Any]:
    """Give a file param with name, content_type and size, whichever way it was given.

    Raises:
        InvalidInput: `no_such_file` where only an id is known, `invalid_params`.
    """
    if isinstance(value, Mapping) and ("text" in value or "base64" in value):
        name = clean_name(str(value["name"]))
        kind = value.get("content_type") or guessed_type(name)
        return {**value, "name": name, "content_type": kind, "size": len(content_of(value))}
    if isinstance(value, Mapping) and isinstance(value.get("size"), int):
        return value
    raise no_such_file(wanted(value) or "")


def piece(value: Mapping[str, Any]) -> bytes | StoredFile:
    """Turn a known file param into a piece of a body."""
    if "file_id" not in value:
        return content_of(value)
    return StoredFile(*(value[name] for name in StoredFile.__slots__))


def no_such_file(file_id: str) -> InvalidInput:
    """Say that there is none of this id."""
    return InvalidInput(
        f"There is no file {file_id[:64]!r}: files are kept for some days, belong to one workspace"
        " and mode, and come from a download step or POST …/files.",
        code="no_such_file",
    )


def clean_name(name: str) -> str:
    """Make a file name that names no folder and breaks no header."""
    found = _UNSAFE.sub("_", name).strip(" .")[:NAME_MAX]
    return found or "file"


def clean_type(told: str | None, name: str) -> str:
    """Give a content type that can stand in a header; guessed from the name where none is told."""
    told = (told or "").strip()
    return told if _TYPE.fullmatch(told) else guessed_type(name)


def guessed_type(name: str) -> str:
    """Tell a content type from a file name's ending."""
    return mimetypes.guess_type(name, strict=False)[0] or UNKNOWN_TYPE
