"""What holds for every provider file besides its shape."""

import re
from datetime import UTC, datetime

import pytest

from schemas.expression import Template
from schemas.provider import ProviderSpec
from schemas.provider_auth import IN_URL
from schemas.settings import Secret
from tests.contract.cases import CATALOGUE, VENDORS, providers, variables_of
from token_vault.core.grants import client_request
from token_vault.core.headers import proof_of, roots_of


def test_catalogue_holds_the_first_four() -> None:
    assert {"slack", "salesforce", "jira", "zendesk"} <= set(CATALOGUE.providers)


@pytest.mark.parametrize("spec", providers())
def test_each_resource_has_an_action(spec: ProviderSpec) -> None:
    assert {action.resource for action in spec.actions.values()} == set(spec.resources)


@pytest.mark.parametrize("spec", providers())
def test_sample_variables_are_accepted(spec: ProviderSpec) -> None:
    for name, value in variables_of(spec).items():
        assert spec.auth.variables[name].accepts(value), name


@pytest.mark.parametrize("spec", providers())
def test_variable_cannot_lead_a_token_to_another_host(spec: ProviderSpec) -> None:
    for name, variable in spec.auth.variables.items():
        if variable.source == "fixed":
            continue
        good = VENDORS[spec.slug].variables.get(name) or variable.default
        assert good is not None
        for bad in (f"{good}@evil.example", f"evil.example/{good}", f"{good}.evil.example#", ""):
            assert not variable.accepts(bad), (name, bad)
        assert not variable.accepts(f"{good}\n"), name


@pytest.mark.parametrize("spec", providers())
def test_connection_addresses_are_https(spec: ProviderSpec) -> None:
    roots = {"connection": spec.connection(variables_of(spec)), "token": "t", "refresh_token": "r"}
    roots["client_id"] = "c"
    for auth in spec.auth.ways:
        steps = [step.url for step in (auth.revoke, auth.account and auth.account.request) if step]
        for url in (auth.authorize_url, auth.token_url, auth.refresh_url, *steps):
            if isinstance(url, Template):
                assert re.match(r"https://[a-z0-9.-]+/", url.text(roots))


@pytest.mark.parametrize("spec", providers())
def test_default_scopes_cover_the_actions(spec: ProviderSpec) -> None:
    granted = set(spec.auth.default_scopes)
    for action in spec.actions.values():
        for scope in action.scopes:
            # Zendesk's `write` holds `tickets:write` and the like.
            assert scope in granted or scope.rpartition(":")[2] in granted, action.id


@pytest.mark.parametrize("spec", providers())
def test_every_secret_of_a_connection_goes_into_what_is_sent(spec: ProviderSpec) -> None:
    """Each way to connect: what its header holds changes with every secret."""
    for auth in spec.auth.ways:
        way = spec.connected_by(auth.kind)
        secrets = {item.name: Secret(f"{item.name}-1") for item in auth.credentials}
        if auth.kind == "client_credentials":
            asked = [{**secrets, name: Secret("other")} for name in secrets]
            tokens = [client_request(auth, one, variables_of(spec)) for one in (secrets, *asked)]
            assert len({repr((one.headers, one.content)) for one in tokens}) == len(tokens)
            secrets = {}
        sent = [_sent(way, "token-1", secrets)]
        sent += [_sent(way, "token-1", {**secrets, name: Secret("other")}) for name in secrets]
        if not secrets:
            sent.append(_sent(way, "token-2", {}))
        assert len(set(sent)) == len(sent), auth.kind


def _sent(spec: ProviderSpec, token: str, secrets: dict[str, Secret]) -> str:
    proof = proof_of(spec.auth, roots_of(spec, token, secrets, variables_of(spec)))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    names = ("", *proof.others)
    headers = [proof.headers("GET", "https://api.example/", {}, None, at, n) for n in names]
    return repr([headers, proof.url(f"https://api.example/{IN_URL}/")])
