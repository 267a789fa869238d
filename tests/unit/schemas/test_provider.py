"""Provider files: read strictly, with every fault told at once."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import InvalidInput, NotFound
from schemas.provider import Catalogue, load_catalogue, providers_folder, sandbox_address
from schemas.settings import ProviderOverride

ACME: dict[str, Any] = {
    "slug": "acme",
    "name": "Acme",
    "category": "storage",
    "status": "live",
    "resources": ["things"],
    "auth": {
        "kind": "oauth2",
        "authorize_url": "https://${connection.host}/authorize",
        "token_url": "https://acme.example/token",
        "variables": {"host": {"from": "customer", "pattern": r"[a-z]+\.acme\.example"}},
        "default_scopes": ["all"],
        "pkce": "required",
        "client_auth": "basic",
        "token_body": "form",
        "refresh": "rotating",
        "token_header": "Authorization: Bearer ${token}",
    },
    "api": {"base_url": "https://${connection.host}/v1"},
    "errors": [{"status": 404, "outcome": "rejected"}],
    "actions": {
        "make_thing": {
            "resource": "things",
            "summary": "Make a thing",
            "doc": "https://acme.example/docs",
            "params": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"name": {"type": "string", "description": "Its name."}},
            },
            "request": {"method": "POST", "path": "/things", "json": {"name": "${params.name}"}},
            "example": {"params": {"name": "x"}, "response": {"status": 201, "body": {"id": 1}}},
        }
    },
}


KEY: dict[str, Any] = {
    "kind": "api_key",
    "credentials": [{"name": "key", "secret": True, "help": "Your key."}],
    "token_header": "X-Key: ${credentials.key}",
    "account": {"request": {"method": "GET", "url": "https://acme.example/me"}},
}


def _load(tmp_path: Path, data: object, slug: str = "acme") -> Catalogue:
    folder = tmp_path / slug
    folder.mkdir(exist_ok=True)
    text = data if isinstance(data, str) else yaml.safe_dump(data)
    (folder / "provider.yaml").write_text(text, encoding="utf-8")
    return load_catalogue(tmp_path)


def _faults(tmp_path: Path, data: object) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        _load(tmp_path, data)
    return [f"{problem.place}: {problem.message}" for problem in caught.value.problems]


def test_folder_is_all_that_a_provider_takes(tmp_path: Path) -> None:
    catalogue = _load(tmp_path, ACME)
    assert list(catalogue.providers) == ["acme"]
    assert catalogue.action("acme", "make_thing").summary == "Make a thing"


def _set(*path: str) -> Callable[[dict[str, Any], Any], None]:
    def change(data: dict[str, Any], value: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("slug",), "acne", "slug"),
        (("colour",), "red", "colour"),
        (("category",), "toys", "category"),
        (("auth", "pkce"), "sometimes", "auth.pkce"),
        (("auth", "token_url"), "http://acme.example/token", "auth.token_url"),
        (("auth", "authorize_url"), "https://${connection.hots}/a", "connection.hots"),
        (("auth", "authorize_url"), "https://${params.name}/a", "auth.authorize_url"),
        (("auth", "variables"), {"host": {"from": "customer"}}, "needs a pattern"),
        (("auth", "variables"), {"host": {"from": "fixed"}}, "needs a default"),
        (("auth", "variables"), {"host": {"from": "token"}}, "nothing reads it"),
        (("auth", "variables", "host", "pattern"), "[", "is no pattern"),
        (("auth", "credentials"), [], "auth.credentials"),
        (("auth", "alternatives"), [{"kind": "oauth2"}], "auth.alternatives"),
        (("auth", "alternatives"), [KEY | {"kind": "basic"}], "basic"),
        (("auth", "alternatives"), [KEY, KEY], "once only"),
        (("auth", "alternatives"), [KEY | {"account": None}], "checked by a request"),
        (("auth", "alternatives"), [KEY | {"variables": {}}], "stand in auth itself"),
        (
            ("auth", "alternatives"),
            [KEY | {"token_header": "X-Key: ${credentials.k}"}],
            "credentials.k is not declared",
        ),
        (
            ("auth", "alternatives"),
            [
                KEY
                | {
                    "kind": "client_credentials",
                    "client_auth": "post",
                    "token_body": "form",
                    "token_url": "https://acme.example/t",
                }
            ],
            "lack client_id",
        ),
        (("errors",), [{"when": "status = 4", "outcome": "rejected"}], "errors[0].when"),
        (("errors",), [{"status": 4, "outcome": "broken"}], "errors[0].outcome"),
        (("errors",), [{"status": 4, "message": "${bod.x}", "outcome": "rejected"}], "bod.x"),
        (("limits",), [{"key": "app", "rate": 1, "per_seconds": 1, "actions": ["x"]}], "'x'"),
        (("actions", "make_thing", "resource"), "toys", "make_thing.resource"),
        (("actions", "make_thing", "request", "path"), "/${params.nam}", "params.nam"),
        (("actions", "make_thing", "request", "json"), {"a": "${params.nam}"}, "params.nam"),
        (("actions", "make_thing", "request", "json"), {"a": "${params.name | up}"}, "'up'"),
        (("actions", "make_thing", "request", "path"), "things", "request.path"),
        (("actions", "make_thing", "request", "proof"), "other", "not in auth.proofs"),
        (("actions", "make_thing", "request", "base_url"), "http://x.example", "base_url"),
        (("auth", "proofs"), {"other": "X-Key: ${credentials.k}"}, "credentials.k"),
        (("actions", "make_thing", "result"), {"id": "${bdy.id}"}, "bdy.id"),
        (("actions", "make_thing", "params", "type"), "array", "params.type"),
        (("actions", "make_thing", "params", "required"), ["nmae"], "nmae"),
        (("actions", "make_thing", "params", "minProperties"), "x", "is not a JSON Schema"),
        (("actions", "make_thing", "hook"), "call_it", "make_thing"),
        (("actions", "make_thing", "pages"), {"items": "${body}", "param": "p"}, "pages.param"),
        (
            ("actions", "make_thing", "pages"),
            {"items": "all", "next_url": "${body.n}"},
            "pages.items",
        ),
    ],
)
def test_fault_is_told_with_its_place(
    tmp_path: Path, path: tuple[str, ...], value: object, told: str
) -> None:
    data = copy.deepcopy(ACME)
    _set(*path)(data, value)
    faults = _faults(tmp_path, data)
    assert any(told in fault for fault in faults), faults
    assert all(fault.startswith("acme/provider.yaml") for fault in faults)


def test_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    broken = copy.deepcopy(ACME)
    broken["actions"]["make_thing"]["resource"] = "toys"
    broken["actions"]["make_thing"]["result"] = {"id": "${x.y}"}
    other = {**ACME, "slug": "other", "resources": []}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "provider.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    faults = _faults(tmp_path, broken)
    assert len(faults) == 3


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    assert "line 2" in _faults(tmp_path, "slug: acme\nname: ]\n")[0]


def test_hook_must_be_defined(tmp_path: Path) -> None:
    data = copy.deepcopy(ACME)
    del data["actions"]["make_thing"]["request"]
    data["actions"]["make_thing"]["hook"] = "call_it"
    assert "defines no call_it" in _faults(tmp_path, data)[0]
    (tmp_path / "acme" / "hooks.py").write_text("def call_it(call):\n    return call\n")
    spec = _load(tmp_path, data).get("acme")
    assert spec.hooks.get("call_it")(5) == 5
    with pytest.raises(NotFound):
        spec.hooks.get("call_that")


def test_unknown_names_get_a_suggestion(tmp_path: Path) -> None:
    catalogue = _load(tmp_path, ACME)
    with pytest.raises(NotFound, match="did you mean 'acme'"):
        catalogue.get("Acmee")
    with pytest.raises(NotFound, match="did you mean 'make_thing'"):
        catalogue.action("acme", "make-things")
    with pytest.raises(NotFound, match="it has: make_thing"):
        catalogue.action("acme", "zzz")


def test_graphql_document_is_a_json_post(tmp_path: Path) -> None:
    data = copy.deepcopy(ACME)
    data["api"] |= {"graphql": "/graphql", "output": "${body.data.result}"}
    action = data["actions"]["make_thing"]
    variables = {"name": "${params.name}"}
    action["request"] = {"graphql": "mutation($n: String!)\n  { x }", "variables": variables}
    query = action | {"request": {"graphql": "query { x }"}, "params": {**action["params"]}}
    query["params"] |= {"properties": {}}
    data["actions"]["get_thing"] = query | {"example": {"params": {}, "response": {"status": 200}}}
    spec = _load(tmp_path, data).get("acme")
    made, got = spec.action("make_thing"), spec.action("get_thing")
    assert made.request is not None
    assert made.request.json is not None
    assert (made.method, made.request.path.source) == ("POST", "/graphql")
    sent = made.request.json.render({"params": {"name": "x"}})
    assert sent == {"query": "mutation($n: String!) { x }", "variables": {"name": "x"}}
    assert (made.read_only, made.idempotent, got.read_only) == (False, False, True)


def test_overrides_say_where_a_provider_is_reached(tmp_path: Path) -> None:
    _load(tmp_path, ACME)
    override = ProviderOverride(
        base_url="http://127.0.0.1:4010/",
        authorize_url="http://127.0.0.1:4010/authorize",
        token_url="http://127.0.0.1:4010/token",
    )
    spec = load_catalogue(tmp_path, {"acme": override}).get("acme")
    assert spec.api.base_url.source == "http://127.0.0.1:4010"
    assert spec.auth.authorize_url is not None
    assert spec.auth.authorize_url.source == "http://127.0.0.1:4010/authorize"
    assert spec.auth.token_url is not None
    assert spec.auth.token_url.source == "http://127.0.0.1:4010/token"


def test_customer_variables_are_checked(tmp_path: Path) -> None:
    auth = _load(tmp_path, ACME).get("acme").auth
    assert auth.check_variables({"host": "eu.acme.example"}) == []
    assert [p.code for p in auth.check_variables({})] == ["missing"]
    wrong = auth.check_variables({"host": "eu.acme.example.evil.example", "region": "eu"})
    assert [(p.place, p.code) for p in wrong] == [
        ("region", "unknown_field"),
        ("host", "bad_value"),
    ]


def test_providers_folder_is_found_without_importing_it() -> None:
    assert (providers_folder() / "slack" / "provider.yaml").is_file()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://slack.com/api/x", "http://127.0.0.1:8090/slack/api/x"),
        ("https://slack.com/api/x?a=1", "http://127.0.0.1:8090/slack/api/x?a=1"),
        ("http://127.0.0.1:8090/slack/api/x", "http://127.0.0.1:8090/slack/api/x"),
        ("http://127.0.0.1:80900/x", "http://127.0.0.1:8090/slack/x"),
    ],
)
def test_sandbox_address_keeps_the_path(url: str, address: str) -> None:
    assert sandbox_address(url, "http://127.0.0.1:8090/", "slack") == address
