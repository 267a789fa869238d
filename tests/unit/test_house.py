"""House rules that no linter knows."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from nhood.settings_doc import FILE, settings_page
from schemas.topics import load_topics, topics_file

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest", "router", "executors", "token_vault", "control", "schemas", "wire", "nhood")
SOURCES = sorted(
    path for package in (*PACKAGES, "bench") for path in (ROOT / package).rglob("*.py")
)
LINES_MAX = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_is_short_and_says_what_it_is_for(path):
    text = path.read_text()
    assert text.count("\n") <= LINES_MAX
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "the module has no docstring"


def test_topics_named_in_code_are_declared():
    declared = {re.escape(name).replace(r"\{provider\}", "[a-z-]+") for name in
                load_topics(topics_file().read_text())}  # fmt: skip
    known = re.compile("|".join(f"^{name}$" for name in declared))
    for path in SOURCES:
        for name in re.findall(r'"(nhood\.[a-z.-]+\.v\d+)"', path.read_text()):
            assert known.match(name), f"{name_of(path)} names {name}"


def test_docs_of_the_settings_are_what_the_settings_say():
    assert FILE.read_text() == settings_page(), "run `python -m nhood.settings_doc`"


def test_every_linked_page_exists():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_compose_file_is_yaml():
    assert yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
