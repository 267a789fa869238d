"""sandbox.yaml: what is not known is refused by its place, what is missing has a default."""

import shutil
from pathlib import Path

import pytest

from nhood.sandbox.plan import path_pattern
from nhood.sandbox.sheet import read_sheet
from schemas.errors import InvalidInput
from schemas.provider import load_catalogue

FOLDER = load_catalogue().get("slack").folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(FOLDER / "provider.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("colour: blue", "colour"),
        ("oauth: {tokens: {}}", "oauth.tokens"),
        ("actions: {send_massage: {}}", "actions.send_massage"),
        ("actions: {send_message: {kinds: do}}", "actions.send_message.kinds"),
        ("resources: {letters: {}}", "resources.letters"),
        ("oauth: [", "not YAML"),
    ],
)
def test_what_is_not_known_is_refused(folder: Path, text: str, place: str) -> None:
    (folder / "sandbox.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=place):
        read_sheet(folder)


def test_provider_without_the_file_is_played_by_the_standards(folder: Path) -> None:
    sheet = read_sheet(folder)
    assert sheet.token is None
    assert sheet.errors["unauthorised"].status == 401
    assert sheet.oauth_error.status == 400


@pytest.mark.parametrize(
    ("source", "path", "match"),
    [
        ("https://slack.com/api/chat.postMessage", "/api/chat.postMessage", None),
        ("https://${connection.subdomain}.zendesk.com/oauth/tokens", "/oauth/tokens", None),
        (
            "${connection.instance_url}/services/data/v${connection.api_version}/sobjects/Lead/${params.id}",
            "/services/data/v62.0/sobjects/Lead/00Q1",
            {"api_version": "62.0", "id": "00Q1"},
        ),
        ("https://a.example/x/${params.id | lower}?q=1", "/x/7", {"id": "7"}),
    ],
)
def test_address_template_becomes_a_path(
    source: str, path: str, match: dict[str, str] | None
) -> None:
    fixed, pattern = path_pattern(source)
    if match is None:
        assert (fixed, pattern) == (path, None)
    else:
        assert pattern is not None
        found = pattern.fullmatch(path)
        assert found is not None
        assert found.groupdict() == match
        assert pattern.fullmatch(path + "/more") is None
