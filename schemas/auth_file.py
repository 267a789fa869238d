"""Reads the `auth` section of a provider file (see `schemas.provider_file`)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from schemas.expression import Template
from schemas.file_reader import ANSWER, Reader
from schemas.provider_auth import (
    AccountStep,
    AccountVariable,
    AuthSpec,
    Credential,
    HttpStep,
    Signing,
    TokenAnswer,
)
from schemas.settings import ProviderOverride

_CONNECTION: Final = frozenset({"connection"})
_ENTERED: Final = frozenset({"connection", "credentials"})
_HEADER: Final = _ENTERED | {"token", "basic"}
_STEP: Final = _HEADER | {"refresh_token", "client_id", "client_secret"}
_CLIENT: Final = frozenset({"client_id", "client_secret"})
_BASIC: Final = "Authorization: Basic ${basic}"
_ACCOUNT: Final = ANSWER | {"token", "connection"}
_TOKEN: Final = {
    "access_token": "${body.access_token}",
    "refresh_token": "${body.refresh_token}",
    "expires_in": "${body.expires_in}",
    "scope": "${body.scope}",
    "error_code": "${body.error}",
    "error_message": "${body.error_description ?? body.error}",
}


def read_auth(data: Mapping[str, Any], reader: Reader, override: ProviderOverride) -> AuthSpec:
    """Compile the section; problems go to the reader."""
    variables = _variables(data.get("variables", {}), reader)
    others = data.get("alternatives", ())
    kinds = [data["kind"], *(item["kind"] for item in others)]
    if len(set(kinds)) < len(kinds):
        reader.wrong("auth.alternatives", "a kind can be there once only")
    read = []
    for number, item in enumerate(others):
        place = f"auth.alternatives[{number}]"
        for key in ("alternatives", "variables"):
            if key in item:
                reader.wrong(place, f"{key} stand in auth itself")
        read.append(_way(item, place, reader, override, variables))
    return _way(data, "auth", reader, override, variables, tuple(read))


def _way(
    data: Mapping[str, Any],
    place: str,
    reader: Reader,
    override: ProviderOverride,
    variables: Mapping[str, AccountVariable],
    alternatives: tuple[AuthSpec, ...] = (),
) -> AuthSpec:
    """Compile one way to connect."""
    credentials = _credentials(data.get("credentials", ()), place, reader)
    reader.credentials = frozenset(item.name for item in credentials)
    account, signing, basic = data.get("account"), data.get("signing"), data.get("basic")
    signs_in = (
        reader.tree(data["token_json"], f"{place}.token_json", _ENTERED)
        if "token_json" in data
        else None
    )
    is_client = data["kind"] == "client_credentials" and signs_in is None
    if is_client and not reader.credentials >= _CLIENT:
        reader.wrong(f"{place}.credentials", "lack client_id and client_secret")
    is_entered = credentials and data["kind"] != "client_credentials"
    if is_entered and "request" not in (account or {}):
        reader.wrong(f"{place}.account", "what a customer enters is checked by a request")

    def url(key: str, instead: str | None) -> Template | None:
        text = instead or data.get(key)
        return reader.template(text, f"{place}.{key}", _CONNECTION) if text else None

    found = AuthSpec(
        kind=data["kind"],
        authorize_url=url("authorize_url", override.authorize_url),
        token_url=url("token_url", override.token_url),
        refresh_url=url("refresh_url", override.token_url),
        revoke=read_step(data["revoke"], f"{place}.revoke", reader) if data.get("revoke") else None,
        variables=variables,
        scope_separator=data.get("scope_separator", " "),
        scope_param=data.get("scope_param", "scope"),
        default_scopes=tuple(data.get("default_scopes", ())),
        authorize_params=data.get("authorize_params", {}),
        pkce=data.get("pkce", "unsupported"),
        client_auth=data.get("client_auth", "none"),
        token_body=data.get("token_body", "form"),
        token_params=data.get("token_params", {}),
        refresh_params=data.get("refresh_params", {}),
        refresh=data.get("refresh", "none"),
        access_token_seconds=data.get("access_token_seconds"),
        token=_token(data.get("token", {}), f"{place}.token", reader),
        account=_account(account, f"{place}.account", reader) if account else None,
        token_header=_header(data.get("token_header", _BASIC), f"{place}.token_header", reader),
        credentials=credentials,
        variable_defaults={n: v.default for n, v in variables.items() if v.default is not None},
        revoke_ends=data.get("revoke_ends", "grant"),
        basic=_basic(basic, f"{place}.basic", reader) if basic else None,
        signing=_signing(signing, f"{place}.signing", reader) if signing else None,
        alternatives=alternatives,
        token_headers=data.get("token_headers", {}),
        proofs={
            name: _header(text, f"{place}.proofs.{name}", reader)
            for name, text in data.get("proofs", {}).items()
        },
        token_json=signs_in,
    )
    reader.credentials = frozenset()
    return found


def _header(text: str, place: str, reader: Reader) -> tuple[str, Template]:
    name, _, value = text.partition(": ")
    return name, reader.template(value, place, _HEADER)


def _credentials(data: Any, place: str, reader: Reader) -> tuple[Credential, ...]:  # noqa: ANN401
    found = []
    for item in data:
        matches = None
        if "pattern" in item:
            try:
                matches = re.compile(item["pattern"], re.ASCII).fullmatch
            except re.error as error:
                where = f"{place}.credentials.{item['name']}"
                reader.wrong(where, f"{item['pattern']!r} is no pattern: {error}")
        found.append(Credential(**item, _matches=matches))
    return tuple(found)


def _basic(data: Mapping[str, str], place: str, reader: Reader) -> tuple[Template, Template]:
    parts = reader.templates(data, place, _ENTERED)
    return parts["user"], parts["password"]


def _signing(data: Mapping[str, str], place: str, reader: Reader) -> Signing:
    named = {name: text for name, text in data.items() if name != "service"}
    parts = reader.templates(named, place, _ENTERED)
    return Signing(
        service=data["service"],
        region=parts["region"],
        access_key_id=parts["access_key_id"],
        secret_access_key=parts["secret_access_key"],
        session_token=parts.get("session_token"),
    )


def read_step(data: Mapping[str, Any], place: str, reader: Reader) -> HttpStep:
    """Compile a request of the connection flow."""

    def tree(key: str) -> Any:  # noqa: ANN401 - Tree or None
        return reader.tree(data[key], f"{place}.{key}", _STEP) if key in data else None

    return HttpStep(
        method=data["method"],
        url=reader.template(data["url"], f"{place}.url", _STEP),
        headers=reader.templates(data.get("headers", {}), f"{place}.headers", _STEP),
        query=tree("query"),
        form=tree("form"),
        json=tree("json"),
        client_auth=data.get("client_auth", "none"),
        token_header=data.get("token_header", True),
    )


def _variables(data: Mapping[str, Any], reader: Reader) -> dict[str, AccountVariable]:
    found = {}
    for name, item in data.items():
        pattern, matches = item.get("pattern"), None
        if pattern is not None:
            try:
                matches = re.compile(pattern, re.ASCII).fullmatch
            except re.error as error:
                reader.wrong(f"auth.variables.{name}", f"{pattern!r} is no pattern: {error}")
        elif item["from"] == "customer":
            reader.wrong(f"auth.variables.{name}", "what a customer enters needs a pattern")
        found[name] = AccountVariable(
            name=name,
            source=item["from"],
            pattern=pattern,
            default=item.get("default"),
            help=item.get("help", ""),
            _matches=matches,
        )
        default = item.get("default")
        if default is not None and not found[name].accepts(default):
            reader.wrong(f"auth.variables.{name}", f"the default {default!r} is not accepted")
        if item["from"] == "fixed" and default is None:
            reader.wrong(f"auth.variables.{name}", "a fixed variable needs a default")
    return found


def _token(data: Mapping[str, Any], place: str, reader: Reader) -> TokenAnswer:
    texts = {key: data.get(key, text) for key, text in _TOKEN.items()}
    parts = {key: reader.template(text, f"{place}.{key}", ANSWER) for key, text in texts.items()}
    return TokenAnswer(
        **parts,
        variables=reader.templates(data.get("variables", {}), f"{place}.variables", ANSWER),
        error_when=reader.optional_condition(data, "error_when", place),
        dead_when=reader.optional_condition(data, "dead_when", place),
    )


def _account(data: Mapping[str, Any], place: str, reader: Reader) -> AccountStep:
    request = data.get("request")
    return AccountStep(
        request=read_step(request, f"{place}.request", reader) if request else None,
        each=reader.optional_template(data, "each", place, _ACCOUNT),
        each_when=reader.optional_condition(data, "each_when", place),
        id=reader.optional_template(data, "id", place, _ACCOUNT),
        name=reader.optional_template(data, "name", place, _ACCOUNT),
        variables=reader.templates(data.get("variables", {}), f"{place}.variables", _ACCOUNT),
        error_when=reader.optional_condition(data, "error_when", place),
    )
