"""Conditions: CEL in which `{{…}}` stands for a value, never for text pasted into the expression.

`"{{ticket.priority}} == 'high'"` compiles to the CEL program `v0 == 'high'`; bare CEL such as
`ticket.priority == 'high'` works too. CEL: https://cel.dev, PyPI `common-expression-language`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cel

from schemas.template import MISSING, Lookup, Reference, TemplateError, Text, compile_text, resolve

TEXT_MAX = 2_000  # characters; a longer condition belongs into several steps
_QUOTED = re.compile(r"""(['"])(?:\\.|(?!\1).)*?\1""")


class ConditionError(Exception):
    """A condition cannot be read or has no truth value; the message says why.

    Attributes:
        code: `bad_condition`, `missing_path` or `condition_not_boolean`.
    """

    def __init__(self, message: str, code: str = "bad_condition") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Decision:
    """A condition's value, with the operands as they were: {template source: value}."""

    value: bool
    operands: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition.

    Attributes:
        bindings: CEL variable -> the template it stands for.
        bare: Names that the author wrote without braces; one that nothing is found for is left
            out of an evaluation (it may be the variable of a macro).
        parts: What stands between its outermost `&&`; empty where there is none.
    """

    source: str
    program: "cel.Program"
    bindings: Mapping[str, Reference]
    bare: tuple[str, ...] = ()
    parts: tuple["Condition", ...] = ()

    def first_false(self, lookup: Lookup) -> "tuple[Condition, Decision]":
        """Say which of the parts joined by `&&` makes it false, where it is.

        Raises:
            ConditionError: As `decide`.
        """
        for part in self.parts:
            decision = part.decide(lookup)
            if not decision.value:
                return part, decision
        return self, self.decide(lookup)

    def decide(self, lookup: Lookup) -> Decision:
        """Evaluate; pure and bounded (CEL has no loops without bound).

        Raises:
            ConditionError: A path is missing, types do not fit, or the value is no boolean.
        """
        try:
            values = {name: resolve(found, lookup) for name, found in self.bindings.items()}
        except TemplateError as error:
            raise ConditionError(str(error), error.code) from error
        for name in self.bare:
            value = lookup(Reference(name, (name,)))
            if value is not MISSING:
                values[name] = value
        try:
            value = self.program.execute(values)
        except KeyError as error:
            raise ConditionError(f"{self.source}: there is no {error}", "missing_path") from error
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise ConditionError(f"{self.source}: {error}", "condition_failed") from error
        if not isinstance(value, bool):
            raise ConditionError(
                f"{self.source} gives {value!r}, which is neither true nor false.",
                "condition_not_boolean",
            )
        operands = {self._written(name): operand for name, operand in values.items()}
        return Decision(value, operands)

    def _written(self, name: str) -> str:
        return self.bindings[name].source if name in self.bindings else name


def compile_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConditionError: With the place and how to mend it.
        TemplateError: For an unreadable `{{…}}`.
    """
    whole = _compile(text)
    parts = _split(text)
    if len(parts) == 1:
        return whole
    return replace(whole, parts=tuple(_compile(part) for part in parts))


def _compile(text: str) -> Condition:
    if len(text) > TEXT_MAX:
        raise ConditionError(f"A condition has at most {TEXT_MAX} characters.")
    for quoted in _QUOTED.finditer(text):
        if "{{" in quoted.group():
            raise ConditionError(
                f"{quoted.group()} puts a template into quotes; take the quotes away, "
                "the value keeps its own type."
            )
    bindings: dict[str, Reference] = {}
    expression = _bind(compile_text(text), bindings)
    try:
        program = cel.compile(expression)
        names = program.variables()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConditionError(f"{text}: {str(error).splitlines()[0]}") from error
    return Condition(text, program, bindings, tuple(n for n in names if n not in bindings))


def _bind(text: Text, bindings: dict[str, Reference]) -> str:
    pieces = []
    for part in text.parts:
        if isinstance(part, str):
            pieces.append(part)
        else:
            name = f"v{len(bindings)}"
            bindings[name] = part
            pieces.append(name)
    return "".join(pieces)


_TOKEN = re.compile(
    r"""(?P<quoted>(['"])(?:\\.|(?!\2).)*?\2)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<both>&&)|(?P<other>\|\||\?)"""
)


def _split(text: str) -> list[str]:
    """Split at the outermost `&&`; a condition with `||` or `?:` beside them stays whole."""
    depth, begin, parts = 0, 0, []
    for token in _TOKEN.finditer(text):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif depth == 0 and token["other"]:
            return [text]
        elif depth == 0 and token["both"]:
            parts.append(text[begin : token.start()].strip())
            begin = token.end()
    return [*parts, text[begin:].strip()]
