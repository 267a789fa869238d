"""What holds for every provider file besides its shape."""

import re

import pytest

from schemas.expression import Template
from schemas.provider import ProviderSpec
from tests.contract.cases import CATALOGUE, VENDORS, providers, variables_of


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
    auth = spec.auth
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
def test_token_header_carries_the_token(spec: ProviderSpec) -> None:
    name, value = spec.auth.token_header
    assert name == "Authorization"
    assert "s3cret" in value.text({"token": "s3cret"})
