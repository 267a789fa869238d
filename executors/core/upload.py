"""Bodies that carry files: one file as it is, or several parts (RFC 2046, RFC 7578); pure."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from schemas import files
from schemas.provider_request import MultipartSpec, RequestSpec
from schemas.transforms import as_text


def upload(
    request: RequestSpec, given: Mapping[str, Any], roots: Mapping[str, Any], effect_key: str
) -> files.Upload | None:
    """Write the body of a request that sends files; None where it sends none.

    Raises:
        InvalidInput: A file's content stands in the params and is not base 64.
    """
    if request.file is not None:
        file = given[request.file]
        return files.Upload(
            files.clean_type(file["content_type"], file["name"]), (files.piece(file),)
        )
    if request.multipart is None:
        return None
    # Whoever made the content cannot know the key, so it holds no such line.
    return multipart(
        request.multipart, given, roots, hashlib.sha256(effect_key.encode()).hexdigest()
    )


def multipart(
    spec: MultipartSpec, given: Mapping[str, Any], roots: Mapping[str, Any], boundary: str
) -> files.Upload:
    """Write a body of several parts; a part whose params were not given is left out."""
    pieces: list[bytes | files.StoredFile] = []
    for name, tree in spec.parts.items():
        value = tree.render(roots)
        if value is None:
            continue
        is_json = isinstance(value, Mapping | list)
        kind = "application/json" if is_json else ""
        pieces.append(_part_head(spec, name, boundary, kind, ""))
        pieces.append(orjson.dumps(value) if is_json else as_text(value).encode())
        pieces.append(b"\r\n")
    for name, param in spec.files.items():
        if param not in given:
            continue
        file = given[param]
        kind = files.clean_type(file["content_type"], file["name"])
        pieces.append(_part_head(spec, name, boundary, kind, files.clean_name(file["name"])))
        pieces.append(files.piece(file))
        pieces.append(b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return files.Upload(f"multipart/{spec.kind}; boundary={boundary}", tuple(pieces))


def _part_head(spec: MultipartSpec, name: str, boundary: str, kind: str, filename: str) -> bytes:
    lines = [f"--{boundary}"]
    if spec.kind == "form-data":
        called = f'; filename="{_quoted(filename)}"' if filename else ""
        lines.append(f'Content-Disposition: form-data; name="{_quoted(name)}"{called}')
    if kind:
        lines.append(f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quoted(text: str) -> str:
    """Escape what would end a quoted name, as browsers do (WHATWG HTML, multipart/form-data)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
