"""Signature vectors that vendors publish, recomputed from what the provider file declares."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import pytest

from schemas.expression import Template
from tests.contract.cases import CATALOGUE

_HASHES = {"hmac-sha256": hashlib.sha256, "hmac-sha1": hashlib.sha1}


def _vectors() -> list[Any]:
    found = []
    for spec in CATALOGUE:
        triggers = spec.triggers or {}
        for number, vector in enumerate(triggers.get("vectors", ())):
            declared = triggers["signature"]
            if "scheme" in vector:
                name, _, index = vector["scheme"].rstrip("]").partition("[")
                declared = triggers[name][int(index)]
            found.append(pytest.param(declared, vector, id=f"{spec.slug}-{number}"))
    assert found
    return found


def _signed(declared: Mapping[str, Any], vector: Mapping[str, Any], body: str) -> str:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    roots = {"raw": body, "timestamp": headers.get(declared.get("timestamp_header", "").lower())}
    text = Template(vector.get("signed", declared["signed"])).text(roots)
    digest = hmac.new(vector["secret"].encode(), text.encode(), _HASHES[declared["algorithm"]])
    encoded = {
        "hex": digest.hexdigest,
        "base64": lambda: base64.b64encode(digest.digest()).decode(),
    }[declared["encoding"]]()
    return f"{declared.get('prefix', '')}{encoded}"


@pytest.mark.parametrize(("declared", "vector"), _vectors())
def test_published_vector_is_accepted(
    declared: Mapping[str, Any], vector: Mapping[str, Any]
) -> None:
    assert _signed(declared, vector, vector["body"]) == vector["signature"]


@pytest.mark.parametrize(("declared", "vector"), _vectors())
def test_tampered_vector_is_refused(declared: Mapping[str, Any], vector: Mapping[str, Any]) -> None:
    assert _signed(declared, vector, vector["body"] + " ") != vector["signature"]
    other = {**vector, "secret": vector["secret"] + "x"}
    assert _signed(declared, other, vector["body"]) != vector["signature"]
