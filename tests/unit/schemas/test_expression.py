"""References and conditions of provider files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInput
from schemas.expression import ABSENT, Condition, MissingPath, Template, Tree

ROOTS = {
    "params": {"n": 5, "text": "hi", "none": None, "list": [1, {"a": 2}], "flag": True},
    "body": {"error": {"title": "Forbidden"}, "a key": "x", "items": [{"id": 7}]},
    "headers": {"retry-after": "3"},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("${params.n}", 5),
        ("${params.flag}", True),
        ("${params.none}", None),
        ("${params.list[1].a}", 2),
        ("${headers['retry-after']}", "3"),
        ("${body['a key']}", "x"),
        ("${headers.retry-after}", "3"),
        ("no reference", "no reference"),
        ("n=${params.n}, ${params.flag}", "n=5, true"),
        ("${params.list}!", '[1,{"a":2}]!'),
        ("${body.message ?? body.error.title}", "Forbidden"),
        ("${params.none ?? 'instead'}", "instead"),
        ("${body.x ?? 3}", 3),
        ("${body.x ?? null}", None),
        ("${params.n | text}", "5"),
        ("${params.list | json | base64}", "WzEseyJhIjoyfV0="),
    ],
)
def test_template_gives(source: str, value: object) -> None:
    assert Template(source).render(ROOTS) == value


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("${body.nothing}", "body.nothing"),
        ("a ${params.n} b ${body.items[1].id}", "body.items[1].id"),
        ("${params.text.deeper}", "params.text.deeper"),
        ("${elsewhere}", "elsewhere"),
    ],
)
def test_missing_path_is_named(source: str, path: str) -> None:
    with pytest.raises(MissingPath) as caught:
        Template(source).render(ROOTS)
    assert caught.value.path == path
    assert Template(source).find(ROOTS) is ABSENT


@pytest.mark.parametrize(
    "source",
    [
        "${}",
        "${a b}",
        "${a.}",
        "${a ??}",
        "${a | nothing}",
        "${a",
        "${'a}",
        "${a || b}",
        "${| csv}",
    ],
)
def test_broken_reference_is_refused_when_compiled(source: str) -> None:
    with pytest.raises(InvalidInput):
        Template(source)


@given(st.text())
def test_rendered_text_is_never_evaluated_again(text: str) -> None:
    assert Template("${params.x}").render({"params": {"x": text}}) == text
    assert Template("<${params.x}>").render({"params": {"x": text}}) == f"<{text}>"


def test_param_that_was_not_given_is_left_out() -> None:
    tree = Tree(
        {
            "kept": "${params.n}",
            "gone": "${params.gone}",
            "whole": {"kind": "constant", "value": "${params.gone}"},
            "half": {"kind": "constant", "value": "${params.text}", "other": "${params.gone}"},
            "list": ["${params.gone}", 1],
            "constant": {"a": [1]},
            "null": "${params.none}",
        }
    )
    assert tree.render(ROOTS) == {
        "kept": 5,
        "half": {"kind": "constant", "value": "hi"},
        "constant": {"a": [1]},
        "null": None,
    }


def test_body_of_which_everything_is_left_out_is_an_empty_object() -> None:
    assert Tree({"a": "${params.gone}"}).render(ROOTS) == {}


def test_missing_path_of_another_root_is_an_error_in_a_body() -> None:
    with pytest.raises(MissingPath, match=r"connection\.subdomain"):
        Tree({"a": "${connection.subdomain}"}).render(ROOTS)


def test_spread_goes_into_the_object_around_it() -> None:
    tree = Tree({"a": 1, "...": "${params.more}", "b": "${params.b}"})
    assert tree.render({"params": {"more": {"a": 2, "c": 3}, "b": 4}}) == {"a": 2, "c": 3, "b": 4}
    assert tree.render({"params": {"b": 4}}) == {"a": 1, "b": 4}


@pytest.mark.parametrize(
    ("source", "roots", "holds"),
    [
        ("status == 200", {"status": 200}, True),
        ("body.ok == false", {"body": {"ok": False}}, True),
        ("body.ok == false", {"body": {"ok": True}}, False),
        ("body.ok == false", {"body": {}}, False),
        ("body.ok == false", {"body": None}, False),
        ("body.ok == false", {"body": "<html>"}, False),
        ("body.ok == false", {}, False),
        ("headers['x-more'] == '1'", {"headers": {"x-more": "1"}}, True),
        ("body.page < body.pages", {"body": {"page": 1, "pages": 2, "huge": 2**70}}, True),
        ("body.exists(k, k == 'a')", {"body": {"a": 1}}, True),
        ("status", {"status": 1}, False),
    ],
)
def test_condition_holds(source: str, roots: dict[str, object], holds: bool) -> None:
    assert Condition(source).holds(roots) is holds


def test_condition_that_is_no_cel_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        Condition("body.ok ==")
    assert caught.value.code == "bad_cel"


def test_engine_and_the_cel_package_live_side_by_side() -> None:
    import cel

    assert cel.evaluate("1 + 1") == 2
    assert Condition("1 + 1 == 2").holds({})
