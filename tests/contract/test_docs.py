"""The pages of the integrations say what the provider files say; every folder is whole."""

from pathlib import Path

import pytest

from nhood.providers.checking import faults
from nhood.providers.pages import pages
from nhood.providers.scaffold import scaffold
from schemas.errors import Conflict, InvalidInput
from schemas.provider import load_catalogue
from tests.contract.cases import CATALOGUE, VENDORS

DOCS = Path(__file__).parents[2] / "docs" / "integrations"


def test_pages_are_as_the_files_say() -> None:
    there = {path.name: path.read_text() for path in DOCS.glob("*.md")}
    wanted = pages(CATALOGUE)
    differ = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
    assert differ == [], "run `nhood providers docs`"


def test_check_finds_nothing_wrong_with_any_provider() -> None:
    found = {spec.slug: faults(spec, VENDORS[spec.slug].variables) for spec in CATALOGUE}
    assert {slug: wrong for slug, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("auth", ["oauth2", "api_key"])
def test_new_provider_is_whole_as_it_stands(tmp_path: Path, auth: str) -> None:
    scaffold(tmp_path, "acme_crm", "Acme CRM", "crm_sales", "https://api.acme.example/v1/", auth)
    (spec,) = load_catalogue(tmp_path)
    assert (spec.name, spec.auth.kind) == ("Acme CRM", auth)
    assert faults(spec, {}) == []
    with pytest.raises(Conflict):
        scaffold(tmp_path, "acme_crm", "Acme", "crm_sales", "https://api.acme.example", auth)


@pytest.mark.parametrize(
    ("slug", "category", "url"),
    [
        ("Acme", "crm_sales", "https://api.acme.example"),
        ("acme", "toys", "https://api.acme.example"),
        ("acme", "crm_sales", "http://api.acme.example"),
        ("acme", "crm_sales", "https:///v1"),
    ],
)
def test_new_provider_with_a_wrong_fact_leaves_nothing_behind(
    tmp_path: Path, slug: str, category: str, url: str
) -> None:
    with pytest.raises(InvalidInput):
        scaffold(tmp_path, slug, "Acme", category, url, "oauth2")
    assert list(tmp_path.iterdir()) == []


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    place = scaffold(tmp_path, "acme", "Acme", "crm_sales", "https://api.acme.example", "api_key")
    file = place / "provider.yaml"
    text = file.read_text().replace("status: 201, body", "status: 409, body")
    file.write_text(text.replace("resources: [things]", "resources: [things, toys]"))
    (place / "fixtures" / "get_thing__gone.json").write_text(
        '{"response": {"status": 404, "headers": {}, "body": {"error": "gone"}},'
        ' "outcome": {"kind": "rejected", "code": "lost"}}'
    )
    (spec,) = load_catalogue(tmp_path)
    assert faults(spec, {}) == [
        "resources: toys is used by no action",
        "actions.create_thing.example: its answer is read as rejected (http_409)",
        "fixtures/get_thing__gone.json: code is 'gone', wanted 'lost'",
    ]
