"""docker-compose.yml says what Docker Compose and our own command understand."""

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "tests" / "specs" / "compose" / "compose-spec.json"
STAGES = {"gateway", "router", "executors", "projector", "sandbox"}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_file_is_valid_by_the_compose_specification(compose):
    validator = Draft202012Validator(json.loads(SPEC.read_text()))
    assert [error.message for error in validator.iter_errors(compose)] == []


def test_schema_would_notice_a_mistake(compose):
    validator = Draft202012Validator(json.loads(SPEC.read_text()))
    wrong = compose | {"services": {"a": {"image": "a", "comand": ["b"]}}}
    assert list(validator.iter_errors(wrong))


def test_every_stage_has_a_service_that_runs_it(compose):
    commands = {name: service.get("command") for name, service in compose["services"].items()}
    assert {name: commands[name] for name in STAGES} == {name: ["serve", name] for name in STAGES}


def test_every_setting_that_is_set_exists_and_is_understood(compose):
    known = {item.metadata["env"] for item in fields(Settings)}
    for name in (*STAGES, "setup"):
        environment = compose["services"][name]["environment"]
        assert set(environment) <= known
        settings = Settings.from_env(environment)
        assert settings.kafka_bootstrap_servers == "kafka:9092"
        assert settings.host == "0.0.0.0"


def test_addresses_name_services(compose):
    environment = compose["services"]["gateway"]["environment"]
    hosts = {
        environment["KAFKA_BOOTSTRAP_SERVERS"].partition(":")[0],
        re.search(r"@([^:/]+)", environment["DATABASE_URL"])[1],
        re.search(r"//([^:/]+)", environment["REDIS_URL"])[1],
    }
    assert hosts == {"kafka", "postgres", "valkey"}
    aliases = compose["services"]["sandbox"]["networks"]["default"]["aliases"]
    assert re.search(r"//([^:/]+)", environment["NHOOD_SANDBOX_URL"])[1] in aliases


def test_every_service_tells_whether_it_is_well(compose):
    unwatched = {name for name, body in compose["services"].items() if "healthcheck" not in body}
    assert unwatched == {"setup"}


def test_stages_wait_for_what_they_need(compose):
    services = compose["services"]
    for name in STAGES:
        assert "setup" in services[name]["depends_on"]
    assert set(services["setup"]["depends_on"]) == {"kafka", "postgres", "valkey"}


def test_only_loopback_is_published(compose):
    for body in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in body.get("ports", []))


def test_image_holds_every_package_of_the_distribution():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]["packages"]
    recipe = (ROOT / "Dockerfile").read_text()
    let_in = (ROOT / ".dockerignore").read_text().split()
    for package in packages:
        assert f"COPY {package} {package}" in recipe
        assert f"!{package}" in let_in
