"""A provider file that was found right is not read as YAML again, and never stands for another."""

import re
from pathlib import Path

import pytest
import yaml

from nhood.providers.scaffold import scaffold
from schemas import provider_cache
from schemas.errors import InvalidInput
from schemas.provider import load_catalogue


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setattr(provider_cache, "_folder", lambda: folder)
    return folder


@pytest.fixture
def provider(tmp_path: Path, kept: Path) -> Path:
    folder = tmp_path / "providers"
    folder.mkdir()
    place = scaffold(folder, "acme", "Acme", "crm_sales", "https://api.acme.example", "oauth2")
    for path in kept.iterdir():
        path.unlink()
    return place / "provider.yaml"


def shown(value: object) -> str:
    return re.sub(r" at 0x[0-9a-f]+|0x[0-9a-f]+", "", repr(value))


def no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was read as YAML")

    monkeypatch.setattr(yaml, "load", refuse)


def test_second_read_needs_no_yaml_and_gives_the_same(
    provider: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = load_catalogue(provider.parents[1])
    no_yaml(monkeypatch)
    (second,) = load_catalogue(provider.parents[1])
    assert list(second.actions) == list(first.actions) == ["create_thing", "get_thing"]
    for name in first.actions:
        assert shown(second.actions[name]) == shown(first.actions[name])
    assert shown(second.auth) == shown(first.auth)
    assert "delete_thing" not in second.actions


def test_changed_file_is_read_anew_and_the_old_one_forgotten(provider: Path, kept: Path) -> None:
    load_catalogue(provider.parents[1])
    before = list(kept.iterdir())
    provider.write_text(provider.read_text().replace("name: Acme", "name: Acme Ltd."))
    (found,) = load_catalogue(provider.parents[1])
    assert found.name == "Acme Ltd."
    assert len(list(kept.iterdir())) == len(before) == 1
    assert list(kept.iterdir()) != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_what_cannot_be_used_is_read_anew(provider: Path, kept: Path, content: bytes) -> None:
    load_catalogue(provider.parents[1])
    (path,) = kept.iterdir()
    path.write_bytes(content)
    (found,) = load_catalogue(provider.parents[1])
    assert found.name == "Acme"
    assert path.read_bytes() != content


def test_wrong_file_is_told_each_time(provider: Path, kept: Path) -> None:
    provider.write_text(provider.read_text().replace("${body.id}", "${params.nothing}"))
    for _ in range(2):
        with pytest.raises(InvalidInput, match="nothing"):
            load_catalogue(provider.parents[1])
    assert not kept.exists() or not list(kept.iterdir())


def test_folder_that_cannot_be_written_does_no_harm(
    provider: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.rmdir()
    kept.write_text("a file stands in the way")
    (found,) = load_catalogue(provider.parents[1])
    assert found.name == "Acme"
