"""Forms and queries whose values nest, and answers that are bare lists."""

from typing import Any

import pytest

from executors.core.request import bracketed
from nhood.sandbox.wire_in import nested


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ({"amount": 5, "confirm": True, "note": None}, [("amount", "5"), ("confirm", "true")]),
        ({"items": [{"price": "p", "n": 2}]}, [("items[0][price]", "p"), ("items[0][n]", "2")]),
        ({"metadata": {"order_id": "6735"}}, [("metadata[order_id]", "6735")]),
        ({"expand": ["a", "b"]}, [("expand[0]", "a"), ("expand[1]", "b")]),
        ({"tags": [], "address": {}}, []),
        ({"description": ""}, [("description", "")]),
    ],
)
def test_nested_value_stands_in_brackets(value: Any, pairs: list[tuple[str, str]]) -> None:
    assert list(bracketed(value)) == pairs


def test_sandbox_reads_brackets_as_they_were_written() -> None:
    value = {"items": [{"price": "p"}, {"price": "q"}], "metadata": {"a": "1"}, "name": "x"}
    assert nested(bracketed(value)) == value
    assert nested([("expand[]", "a"), ("expand[]", "b")]) == {"expand": ["a", "b"]}
    assert nested([("page[size]", "2"), ("odd]", "1")]) == {"page": {"size": "2"}, "odd]": "1"}
