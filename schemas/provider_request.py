"""The one request of an action, as a provider file declares it; part of `schemas.provider`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.expression import Template, Tree


@dataclass(frozen=True, slots=True)
class MultipartSpec:
    """A body of several parts.

    Attributes:
        kind: `form-data` (RFC 7578) or `related` (RFC 2387: JSON and then a file, without names).
        parts: By name, in this order: a template of text, JSON where it renders to an object.
        files: The parts that are files: which param each holds.
    """

    kind: Literal["form-data", "related"]
    parts: Mapping[str, Tree]
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """The one request of an action (what needs several is a hook).

    Attributes:
        base_url: Instead of the API's usual one.
        proof: Which of the auth's `proofs` it carries; empty: the usual header.
        json_headers: Headers whose value is JSON, in ASCII.
        file: The param whose content is the body.
        download: The answer's body is kept as a file, under this name where the vendor gives none.
    """

    method: str
    path: Template
    query: Tree | None
    headers: Mapping[str, Template]
    json: Tree | None
    form: Tree | None
    passes: tuple[str, ...]
    base_url: Template | None = None
    proof: str = ""
    file: str | None = None
    multipart: MultipartSpec | None = None
    download: Template | None = None
    json_headers: Mapping[str, Tree] = field(default_factory=dict)
