"""The transforms that references may apply."""

from typing import Any

import pytest

from schemas.errors import InvalidInput
from schemas.transforms import TRANSFORMS, adf


def test_adf_keeps_paragraphs_and_line_breaks() -> None:
    assert adf("one\ntwo\r\n\nthree") == {
        "type": "doc",
        "version": 1,
        "content": [
            {
                "type": "paragraph",
                "content": [
                    {"type": "text", "text": "one"},
                    {"type": "hardBreak"},
                    {"type": "text", "text": "two"},
                ],
            },
            {"type": "paragraph", "content": [{"type": "text", "text": "three"}]},
        ],
    }


@pytest.mark.parametrize("text", ["", "\n", "\n\n\n", "a\n\n\n\nb"])
def test_adf_never_holds_an_empty_text(text: str) -> None:
    assert '"text": ""' not in str(adf(text)).replace("'", '"')


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("adf", {"type": "doc"}, {"type": "doc"}),
        ("csv", ["a", 1, True], "a,1,true"),
        ("csv", "a,b", "a,b"),
        ("json", [1], "[1]"),
        ("json", "[1]", "[1]"),
        ("text", 1.5, "1.5"),
        ("text", None, ""),
        ("number", "4", 4),
        ("number", "4.5", 4.5),
        ("number", 4, 4),
        ("lower", "ABC", "abc"),
        ("email", "a@b.example", {"email": "a@b.example"}),
        ("id", "abc", {"id": "abc"}),
        ("id", {"accountId": "x"}, {"accountId": "x"}),
        ("key_or_id", "PROJ", {"key": "PROJ"}),
        ("key_or_id", "10001", {"id": "10001"}),
        ("name_or_id", "Bug", {"name": "Bug"}),
        ("name_or_id", "10001", {"id": "10001"}),
        ("names", ["a", {"id": "1"}], [{"name": "a"}, {"id": "1"}]),
        ("body", "text", {"body": "text"}),
        (
            "sentences",
            {"a": "is bad", "b": [{"description": "is worse"}]},
            "a: is bad; b: is worse",
        ),
        ("sentences", ["one", "two"], "one; two"),
        ("sentences", {}, ""),
        ("slashed", "aDYl/hsH+A==", "aDYl/hsH+A=="),
        ("slashed", "/aDYl+A==", "%2FaDYl%2BA%3D%3D"),
        ("slashed", "aD//Yl", "aD%2F%2FYl"),
        ("slashed", 92674392836, "92674392836"),
        ("last_segment", "gid://shopify/Product/7", "7"),
        ("last_segment", 7, "7"),
        ("first_label", "acme.myshopify.com", "acme"),
        (
            "cost_wait",
            {
                "requestedQueryCost": 900,
                "throttleStatus": {"currentlyAvailable": 100, "restoreRate": 50.0},
            },
            16.0,
        ),
        ("cost_wait", {"requestedQueryCost": 1, "throttleStatus": {"restoreRate": 0}}, None),
        ("cost_wait", "?", None),
        ("notion_text", "", []),
        ("notion_text", [{"text": {"content": "x"}}], [{"text": {"content": "x"}}]),
        ("from_base64", "SGVsbG8gV29y\nbGQh\n", "Hello World!"),
        ("from_base64", "R3LDvMOfZQ==", "Grüße"),
        ("from_base64", "not base 64!", None),
        ("last_id", [{"id": "a"}, {"id": "b"}], "b"),
        ("last_id", [], None),
        (
            "next_link",
            '<https://x.example/?a=1,2&page=2>; rel="next"',
            "https://x.example/?a=1,2&page=2",
        ),
        (
            "next_link",
            '<https://x.example/1>; rel="prev", <https://x.example/3>; rel=next',
            "https://x.example/3",
        ),
        ("next_link", '<https://x.example/3>; title="a"; rel="last next"', "https://x.example/3"),
        (
            "next_link",
            '<https://x.example/1>; rel="first", <https://x.example/9>; rel="last"',
            None,
        ),
        ("next_link", "", None),
        ("crc32", "123456789", 3421780262),
        ("from_json", '{"eventType":"Send"}', {"eventType": "Send"}),
        ("from_json", "You have chosen", "You have chosen"),
        ("from_json", {"a": 1}, {"a": 1}),
    ],
)
def test_transform_gives(name: str, value: object, result: object) -> None:
    assert TRANSFORMS[name](value) == result


@pytest.mark.parametrize("value", ["four", True, None, [1]])
def test_number_refuses_what_is_none(value: object) -> None:
    with pytest.raises(InvalidInput):
        TRANSFORMS["number"](value)


def test_long_text_becomes_several_runs() -> None:
    runs: Any = TRANSFORMS["notion_text"]("a" * 4_500)
    assert [len(run["text"]["content"]) for run in runs] == [2_000, 2_000, 500]


def test_text_becomes_blocks() -> None:
    text = "# Plan\n\nFirst line\nsecond line\n\n- milk\n- [x] done\n1. one\n> so\n#tag"
    blocks: Any = TRANSFORMS["notion_blocks"](text)
    told = [(b["type"], b[b["type"]]["rich_text"][0]["text"]["content"]) for b in blocks]
    assert told == [
        ("heading_1", "Plan"),
        ("paragraph", "First line\nsecond line"),
        ("bulleted_list_item", "milk"),
        ("to_do", "done"),
        ("numbered_list_item", "one"),
        ("quote", "so"),
        ("paragraph", "#tag"),
    ]
    assert blocks[3]["to_do"]["checked"] is True
    assert TRANSFORMS["notion_blocks"](blocks) is blocks
    assert TRANSFORMS["notion_blocks"]("") == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("ada@acme.example", [{"email": "ada@acme.example"}]),
        (
            "Ada <ada@acme.example>, bob@acme.example",
            [{"email": "ada@acme.example", "name": "Ada"}, {"email": "bob@acme.example"}],
        ),
        (
            ['"Love, Ada" <ada@acme.example>', {"email": "b@acme.example"}],
            [{"email": "ada@acme.example", "name": "Love, Ada"}, {"email": "b@acme.example"}],
        ),
    ],
)
def test_addresses_become_objects(value: object, found: object) -> None:
    assert TRANSFORMS["addresses"](value) == found


def test_one_address_becomes_an_object() -> None:
    made = TRANSFORMS["address"]("Ada <ada@acme.example>")
    assert made == {"email": "ada@acme.example", "name": "Ada"}
    assert TRANSFORMS["address"](made) is made


def test_pairs_are_sorted_and_stand_once() -> None:
    pairs = [["To", "2"], ["Body", "b"], ["To", "1"], ["To", "2"]]
    assert TRANSFORMS["sorted_pairs"](pairs) == "BodybTo1To2"
