"""Makes params that use everything an action declares, out of its own JSON Schema."""

from functools import cache
from typing import Any

from jsonschema_rs import Draft202012Validator

from schemas.files import FILE
from schemas.provider import ActionSpec
from schemas.provider_file import ITEMS_PARAM
from tests.contract.cases import CATALOGUE

_TEXTS = (
    "text",
    "1503435956.000247",
    "7",
    "PROJ",
    "00Q5e00000A1b2CEAR",
    "2026-03-11",
    "2026-03-11T10:00:00Z",
    "roge@example.org",
    "6dcb09b5b57875f334f61aebed695e2e4193db5e",
    "https://example.org/a",
    *(f"{kind}{'0123456789abcdef' * 2}" for kind in ("MG", "HX", "AP")),  # Twilio's ids
)


@cache
def _examples() -> tuple[str, ...]:
    """Give the texts of all examples of the catalogue, each once."""
    found: dict[str, None] = {}
    for spec in CATALOGUE:
        for action in spec.actions.values():
            _gather([action.example.params, action.example.body], found)
    return tuple(found)


def _gather(value: Any, found: dict[str, None]) -> None:
    if isinstance(value, str):
        found[value] = None
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            _gather(item, found)


def full_params(action: ActionSpec) -> dict[str, Any]:
    """Give params with every declared one: the example's where it has it, else a made one."""
    given = action.prepare(action.example.params)
    made = {
        name: given[name] if name in given else sample(schema, name)
        for name, schema in action.params["properties"].items()
    }
    made.pop(ITEMS_PARAM, None)
    return made


def sample(schema: dict[str, Any], name: str = "some") -> Any:
    """Give one value that a schema allows; texts differ by name where they may."""
    if schema.get("format") == FILE:
        return {"text": f"content of {name}", "name": f"{name}.txt"}
    choices = [schema, *schema.get("anyOf", ())]
    for choice in reversed(choices):
        for value in _candidates(choice, name):
            if Draft202012Validator(schema, validate_formats=True).is_valid(value):
                return value
    raise AssertionError(f"no sample for {schema}")


def _candidates(schema: dict[str, Any], name: str) -> list[Any]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    values: list[Any] = [*schema.get("enum", ())]
    for kind in kinds:
        if kind == "string":
            values += (f"{name} text", *_TEXTS)
            if "pattern" in schema:  # ids have forms of their own; the examples hold some
                values += _examples()
        elif kind in ("integer", "number"):
            values += [schema.get("minimum", 1), 1]
        elif kind == "boolean":
            values.append(True)
        elif kind == "array":
            values += [[sample(schema.get("items", {"type": "string"}))]]
        elif kind == "object":
            inner = schema.get("properties", {})
            names = dict.fromkeys([*schema.get("required", ()), *inner])
            made = {part: sample(inner.get(part, {"type": "string"}), part) for part in names}
            values += [made or {"own_name": []}, {"own_name": "text"}]
            if "additionalProperties" in schema:
                values.reverse()
    return values
