"""Templates as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.template import DEPTH_MAX, TemplateError, compile_text, compile_value, render, walk

PAYLOAD = {
    "customer": {"name": "Ann", "age": 41, "vip": True, "tags": ["a", "b"], "none": None},
    "first-name": "Ann",
    "odd key": 1,
}


def fill(text: str) -> object:
    return render(compile_text(text), lambda reference: walk(PAYLOAD, reference.path))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{customer.name}}", "Ann"),
        ("{{ customer.age }}", 41),
        ("{{customer.vip}}", True),
        ("{{customer.tags}}", ["a", "b"]),
        ("{{customer.tags[1]}}", "b"),
        ("{{customer.tags.0}}", "a"),
        ("{{customer.none}}", None),
        ("{{first-name}}", "Ann"),
        ("{{customer['name']}}", "Ann"),
        ("Hi {{customer.name}}, {{customer.age}}", "Hi Ann, 41"),
        ("vip: {{customer.vip}}", "vip: true"),
        ("tags {{customer.tags}}", 'tags ["a","b"]'),
        ("none:{{customer.none}}.", "none:."),
        ("{{customer.nope | default('x')}}", "x"),
        ("{{customer.nope | default: 7}}", 7),
        ("{{customer.nope | default(null)}}", None),
        ("{{customer.name | default('x')}}", "Ann"),
        (r"\{{not a template}}", "{{not a template}}"),
        ("no template", "no template"),
        ("", ""),
    ],
)
def test_template_gives(text, value):
    found = fill(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{customer.name", "never closed"),
        ("{{}}", "not a path"),
        ("{{a b}}", "not a path"),
        ("{{.a}}", "not a path"),
        ("{{a..b}}", "not a path"),
        ("{{a | upper}}", "only default"),
        ("{{a | default(x)}}", "neither quoted text nor JSON"),
        ("{{" + ".".join(["a"] * 40) + "}}", "more than 32 parts"),
    ],
)
def test_unreadable_template_says_what_is_wrong(text, says):
    with pytest.raises(TemplateError, match=says):
        compile_text(text)


def test_missing_path_is_named():
    with pytest.raises(TemplateError, match=r"customer\.nope") as caught:
        fill("{{customer.nope}}")
    assert caught.value.code == "missing_path"


def test_nesting_has_a_limit():
    value: object = "x"
    for _ in range(DEPTH_MAX + 2):
        value = [value]
    with pytest.raises(TemplateError, match="levels deep"):
        compile_value(value)


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_braces_stays_as_it_is(text):
    assert fill(text) == text


@given(st.text())
def test_rendered_text_is_never_looked_at_again(text):
    rendered = render(compile_text("<{{x}}>"), lambda _: text)
    assert rendered == f"<{text}>"
