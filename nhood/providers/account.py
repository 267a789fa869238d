"""An account to try a provider with: the one that the sandbox's consent opens."""

from collections.abc import Mapping
from typing import Any, Final

from nhood.sandbox.accounts import ACCOUNT_DEFAULT, account_forms
from nhood.sandbox.sheet import Sheet, read_sheet
from schemas.errors import InvalidInput
from schemas.expression import ABSENT, Template
from schemas.provider import ProviderSpec

# What a customer may have told; one of these fits most variables.
_TOLD: Final = (
    *("acme", "acme.example.com", "https://acme.example.com", "us-east-1", "eu", "us1"),
    *("1234567890", "AC0123456789abcdef0123456789abcdef", "rest.iad-01.braze.com"),
    *("+14155238886", "123456789012"),
)


def variables_of(spec: ProviderSpec, told: Mapping[str, str]) -> dict[str, str]:
    """Give values for the variables of an account: what is told, else what would be found.

    Raises:
        InvalidInput: `no_sample`, none of ours fits a variable, so it has to be told;
            `bad_variable`, what is told does not fit.
    """
    answered = _answered(spec, read_sheet(spec.folder))
    found = {}
    for name, variable in spec.auth.variables.items():
        if variable.default is not None and name not in told:
            continue
        ours = (answered.get(name, ""), *_TOLD)
        value = told.get(name) or next((one for one in ours if variable.accepts(one)), None)
        if value is None:
            text = f"Tell a value for {name} ({variable.pattern}): --account {name}=…"
            raise InvalidInput(text, code="no_sample")
        if not variable.accepts(value):
            text = f"{name} must match {variable.pattern}; {value!r} does not."
            raise InvalidInput(text, code="bad_variable")
        found[name] = value
    return found


def _answered(spec: ProviderSpec, sheet: Sheet) -> dict[str, str]:
    """Give the variables that the sandbox's token answer and account look-up tell."""
    templates: list[tuple[Mapping[str, Template], Any]] = [(spec.auth.token.variables, sheet.token)]
    if spec.auth.account is not None:
        templates.append((spec.auth.account.variables, sheet.account))
    account = account_forms(spec.slug, ACCOUNT_DEFAULT)
    grant = dict.fromkeys(("access_token", "refresh_token", "scope"), "t")
    roots = {"account": account, "now_ms": "0",
             "grant": {**grant, "expires_in": 3600, "scopes": []}}  # fmt: skip
    found: dict[str, str] = {}
    for variables, tree in templates:
        body = None if tree is None else tree.render(roots)
        each = spec.auth.account.each if spec.auth.account else None
        if each is not None and isinstance(listed := each.find({"body": body}), list) and listed:
            body = listed[0]
        for name, template in variables.items():
            value = template.find({"body": body, "token": body, "connection": found})
            if value is not ABSENT and value is not None:
                found[name] = str(value)
    return found
