"""Reads what a developer wrote, object by object; notes every problem with its place.

`schemas.workflow`, `schemas.starts` and `schemas.pauses` say what may stand where.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from schemas.condition import Condition, ConditionError, compile_condition
from schemas.errors import Problem
from schemas.template import TemplateError, Text, compile_text

NAME_MAX = 200
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(value: object) -> float | None:
    """Give milliseconds of seconds or of text with a unit; None where it is neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value * 1_000
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return float(match[1]) * _UNIT_MS[match[2]]
    return None


class Reader:
    """Reads one JSON object; notes every problem with its place instead of stopping."""

    def __init__(self, value: object, place: str, problems: list[Problem]) -> None:
        self.place = place
        self.problems = problems
        self.body: Mapping[str, Any] = {}
        if isinstance(value, Mapping):
            self.body = value
        else:
            self.note("", "must be an object", 'Write {"…": …}.', "wrong_type")

    def at(self, name: str) -> str:
        """Give the place of a field."""
        return f"{self.place}.{name}" if self.place and name else self.place or name

    def note(self, name: str, message: str, mend: str = "", code: str = "invalid") -> None:
        """Note a problem of a field, and how to mend it."""
        self.problems.append(Problem(self.at(name), message, mend, code))

    def known(self, *names: str) -> None:
        """Refuse every other field, with a suggestion."""
        for name in self.body:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, 1)
                mend = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(names)}."
                self.note(str(name), "is not a known field", mend, "unknown_field")

    def text(self, name: str, *, required: bool = False, longest: int = NAME_MAX) -> str | None:
        """Read text; None where there is none."""
        value = self.body.get(name)
        if value is None:
            if required:
                self.note(name, "is missing", f"Give {name} as text.", "missing_field")
            return None
        if not isinstance(value, str) or not value.strip():
            self.note(name, "must be text that is not empty", "", "wrong_type")
            return None
        if len(value) > longest:
            self.note(name, f"has more than {longest} characters", "Shorten it.", "too_long")
            return None
        return value

    def choice(self, name: str, options: tuple[str, ...], default: str) -> str:
        """Read one of some words."""
        value = self.body.get(name, default)
        if value in options:
            return str(value)
        near = difflib.get_close_matches(str(value), options, 1)
        hint = f"Did you mean {near[0]}?" if near else f"One of: {', '.join(options)}."
        self.note(name, f"{value!r} is not possible here", hint, "bad_choice")
        return default

    def template(self, name: str) -> Text | None:
        """Read text with templates in it."""
        value = self.text(name, longest=2_000)
        if value is None:
            return None
        try:
            return compile_text(value)
        except TemplateError as error:
            self.note(name, str(error), "See docs/workflows.md, templates.", error.code)
            return None

    def condition(self, name: str, *, required: bool) -> Condition | None:
        """Read a condition."""
        value = self.text(name, required=required, longest=2_000)
        if value is None:
            return None
        try:
            return compile_condition(value)
        except (ConditionError, TemplateError) as error:
            self.note(name, str(error), "See docs/workflows.md, conditions.", error.code)
            return None

    def ids(self, name: str) -> tuple[str, ...] | None:
        """Read a step id or a list of them."""
        value = self.body.get(name)
        if value is None:
            return None
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            self.note(name, "must be a step id or a list of them", 'Write ["step_id"].')
            return ()
        return tuple(dict.fromkeys(listed))

    def duration_ms(self, name: str, default: int, most: int) -> int:
        """Read seconds as a number, or text with a unit: 30, "30s", "5m", "250ms", "3d"."""
        value = self.body.get(name)
        if value is None:
            return default
        found = duration_ms(value)
        if found is None or not 0 < found <= most:
            self.note(
                name,
                f"{value!r} is not a duration above 0 and up to {_told(most)}",
                'Write seconds (30) or text with a unit ("30s", "5m").',
                "bad_duration",
            )
            return default
        return int(found)

    def optional_ms(self, name: str, most: int) -> int | None:
        """Read a duration; None where there is none."""
        return self.duration_ms(name, 0, most) or None

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Read a whole number."""
        value = self.body.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.note(name, f"must be a whole number from {least} to {most}", "", "out_of_range")
            return default
        return value


def _told(milliseconds: int) -> str:
    """Write a bound as people say it."""
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if milliseconds >= 2 * size and milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds // 1000} seconds"
