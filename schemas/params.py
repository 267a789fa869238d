"""Checks an action's params against its JSON Schema and says what is wrong in words; pure.

The same check runs twice: when a workflow is saved, while some values are still `{{templates}}`,
and before a call, on the rendered values.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Final, cast

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind

from schemas.errors import InvalidInput, Problem

PROBLEMS_MAX: Final = 50
"""Problems told in one answer: more than a person mends at once."""

_OPEN: Final = "{{"
_TYPES: Final = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}
_TYPE_NAMES: Final = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}


class ParamsChecker:
    """A compiled schema; compiled when first used, since most processes check few actions."""

    __slots__ = ("_schema", "_validator")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._validator: jsonschema_rs.Draft202012Validator | None = None

    def check(self, params: Mapping[str, Any], *, templated: bool) -> list[Problem]:
        """Give every problem of the params (see `ActionSpec.check_params`)."""
        if self._validator is None:
            self._validator = jsonschema_rs.Draft202012Validator(
                cast("dict[str, Any]", self._schema), validate_formats=True
            )
        if self._validator.is_valid(cast("dict[str, Any]", params)):
            return []
        problems: list[Problem] = []
        for error in self._validator.iter_errors(cast("dict[str, Any]", params)):
            if templated and _is_excused(error):
                continue
            problems.extend(self._describe(error))
            if len(problems) >= PROBLEMS_MAX:
                break
        return list(dict.fromkeys(problems))

    def _describe(self, error: ValidationError) -> list[Problem]:
        place = place_of(error.instance_path)
        kind = error.kind
        if isinstance(kind, ValidationErrorKind.Required):
            name = kind.property
            mend = self._about(error, name) or f"Give {name}."
            return [Problem(_join(place, name), f"{name} is missing", mend, "missing")]
        if isinstance(kind, ValidationErrorKind.AdditionalProperties):
            return [self._unknown(error, place, name) for name in kind.unexpected]
        code, message = _message(error)
        subject = place or "params"
        return [Problem(place, f"{subject} {message}", self._about(error), code)]

    def _unknown(self, error: ValidationError, place: str, name: str) -> Problem:
        known = list(self._schema_at(error).get("properties", {}))
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        if not close:
            lowered = {item.lower().replace("_", ""): item for item in known}
            plain = name.lower().replace("_", "").replace("-", "")
            close = [lowered[plain]] if plain in lowered else []
        mend = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}."
        return Problem(_join(place, name), f"{name} is not a param here", mend, "unknown_field")

    def _about(self, error: ValidationError, name: str | None = None) -> str:
        """Give the description of the property in question, the best way to say how to mend it."""
        schema = self._schema_at(error)
        if name is not None:
            schema = schema.get("properties", {}).get(name, {})
        about = schema.get("description", "")
        return str(about)

    def _schema_at(self, error: ValidationError) -> Mapping[str, Any]:
        node: Any = self._schema
        for step in error.instance_path:
            if not isinstance(node, Mapping):
                return {}
            node = (
                node.get("items", {})
                if isinstance(step, int)
                else node.get("properties", {}).get(step, {})
            )
        return cast("Mapping[str, Any]", node) if isinstance(node, Mapping) else {}


def _message(error: ValidationError) -> tuple[str, str]:  # noqa: PLR0911 - one line per keyword
    kind, value = error.kind, error.instance
    match kind:
        case ValidationErrorKind.Type():
            wanted = " or ".join(_TYPE_NAMES.get(name, name) for name in kind.types)
            return "wrong_type", f"must be {wanted}, not {_TYPES.get(type(value), 'this')}"
        case ValidationErrorKind.Enum():
            options = [str(option) for option in kind.options]
            close = difflib.get_close_matches(str(value), options, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return "not_allowed", f"must be one of {', '.join(options)}, not {value!r}{hint}"
        case ValidationErrorKind.MaxLength():
            return "too_long", f"may have {kind.limit} characters, it has {len(str(value))}"
        case ValidationErrorKind.MinLength():
            return "too_short", f"must have at least {kind.limit} characters"
        case ValidationErrorKind.Pattern():
            return "bad_format", f"is {value!r}, which does not match {kind.pattern}"
        case ValidationErrorKind.Format():
            return "bad_format", f"is {value!r}, which is not a valid {kind.format}"
        case ValidationErrorKind.MinProperties():
            return "too_few", "needs something to set besides what names the thing"
        case ValidationErrorKind.AnyOf() | ValidationErrorKind.OneOfNotValid():
            return _alternatives(kind.context)
        case _:
            return "invalid", f"is wrong: {error.message}"


def _alternatives(branches: list[list[ValidationError]]) -> tuple[str, str]:
    names = [
        error.kind.property
        for branch in branches
        for error in branch
        if isinstance(error.kind, ValidationErrorKind.Required)
    ]
    if names and all(
        isinstance(error.kind, ValidationErrorKind.Required)
        for branch in branches
        for error in branch
    ):
        return "missing", f"need one of {', '.join(dict.fromkeys(names))}"
    told = "; or ".join(_message(branch[0])[1] for branch in branches if branch)
    return "invalid", told


def _is_excused(error: ValidationError) -> bool:
    """Say whether a template that is not rendered yet is why this does not hold."""
    kind, value = error.kind, error.instance
    if isinstance(value, str) and _OPEN in value:
        if _is_whole_template(value):
            return True
        if isinstance(kind, ValidationErrorKind.Type):
            return "string" in kind.types
        return not isinstance(
            kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid
        ) or (any(all(_is_excused(e) for e in branch) for branch in kind.context))
    if isinstance(kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
        return any(branch and all(_is_excused(e) for e in branch) for branch in kind.context)
    return isinstance(kind, ValidationErrorKind.OneOfMultipleValid) and _has_template(value)


def _is_whole_template(text: str) -> bool:
    stripped = text.strip()
    return stripped.startswith(_OPEN) and stripped.endswith("}}") and stripped.count(_OPEN) == 1


def _has_template(value: object) -> bool:
    if isinstance(value, str):
        return _OPEN in value
    if isinstance(value, Mapping):
        return any(_has_template(item) for item in value.values())
    return isinstance(value, list) and any(_has_template(item) for item in value)


def place_of(path: "list[str | int]") -> str:
    """Write a JSON path as a person reads it: `blocks[0].type`."""
    text = ""
    for step in path:
        text = f"{text}[{step}]" if isinstance(step, int) else _join(text, step)
    return text


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check that a params schema is a JSON Schema.

    Raises:
        InvalidInput: If it is not.
    """
    try:
        jsonschema_rs.meta.validate(cast("dict[str, Any]", schema))
    except jsonschema_rs.ValidationError as error:
        raise InvalidInput(f"is not a JSON Schema: {error.message}", code="bad_schema") from None
