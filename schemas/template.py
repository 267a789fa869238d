r"""Templates: `{{customer.name}}`, `{{steps.create_jira.output.key}}`, `{{plan | default('x')}}`.

A path's first word says where it looks:

    steps.<id>.output|id|status|error…   an earlier step
    execution.id|event_id                this execution
    workflow.id|name|version             its workflow
    user.id                              the end customer (any other `user.…` reads the payload)
    trigger…                             the payload, whatever its first key is called
    anything else                        the payload

A template that is the whole value keeps its type; inside text it becomes text (null gives nothing,
lists and objects JSON). A missing path is an error that names it unless a default is given.
Rendered text is never looked at again. `\{{` writes two braces.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

DEPTH_MAX = 32  # levels of lists and objects in a config: deeper ones are a mistake or an attack
PATH_PARTS_MAX = 32

_OPEN = re.compile(r"\\\{\{|\{\{")
_PART = re.compile(
    r"""\.?(?P<name>[A-Za-z_][\w-]*)|\.(?P<number>\d+)|\[(?P<index>\d+)\]|\[(?P<q>['"])(?P<quoted>.*?)(?P=q)\]"""
)
_DEFAULT = re.compile(r"^default\s*(?:\((?P<call>.*)\)|:\s*(?P<colon>.*))$", re.DOTALL)


class TemplateError(Exception):
    """A template cannot be read or filled in; the message says which and why.

    Attributes:
        code: `bad_template` or `missing_path`.
    """

    def __init__(self, message: str, code: str = "bad_template") -> None:
        super().__init__(message)
        self.code = code


class _Missing:
    """Marks that there is no default."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """One `{{…}}`: where to look and what to take when nothing is there."""

    source: str
    path: Path
    default: Any = MISSING

    @property
    def step(self) -> str | None:
        """Id of the step it reads, if it reads one."""
        if len(self.path) > 1 and self.path[0] == "steps":
            return str(self.path[1])
        return None


Lookup = Callable[[Reference], Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A string with templates in it; `parts` are literals and references in order."""

    parts: tuple[str | Reference, ...]

    @property
    def whole(self) -> Reference | None:
        """The reference that is the whole value, which keeps its type."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Reference):
            return self.parts[0]
        return None

    @property
    def references(self) -> Iterator[Reference]:
        """All references in order."""
        return (part for part in self.parts if isinstance(part, Reference))


def has_template(text: str) -> bool:
    """Say whether the text holds a template or an escaped one."""
    return "{{" in text


def compile_text(text: str) -> Text:
    """Read a string.

    Raises:
        TemplateError: For an unclosed or unreadable template; names it.
    """
    parts: list[str | Reference] = []
    position = 0
    while match := _OPEN.search(text, position):
        if match.start() > position:
            parts.append(text[position : match.start()])
        if match.group().startswith("\\"):
            parts.append("{{")
            position = match.end()
            continue
        end = text.find("}}", match.end())
        if end < 0:
            raise TemplateError(f"{text[match.start() : match.start() + 40]!r} is never closed.")
        parts.append(_reference(text[match.end() : end].strip()))
        position = end + 2
    if position < len(text) or not parts:
        parts.append(text[position:])
    return Text(tuple(parts))


def _reference(source: str) -> Reference:
    expression, bar, rest = source.partition("|")
    path = _path(expression.strip())
    if not bar:
        return Reference(source, path)
    match = _DEFAULT.match(rest.strip())
    if match is None:
        raise TemplateError(
            f"{{{{{source}}}}}: after `|` only default('…') is known, not {rest.strip()!r}."
        )
    return Reference(source, path, _literal(source, match["call"] or match["colon"] or ""))


def _literal(source: str, text: str) -> object:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise TemplateError(
            f"{{{{{source}}}}}: the default {text!r} is neither quoted text nor JSON."
        ) from None


def _path(expression: str) -> Path:
    parts: list[str | int] = []
    position = 0
    while position < len(expression):
        match = _PART.match(expression, position)
        if match is None or (not parts and expression[0] in ".["):
            break
        number = match["number"] or match["index"]
        parts.append(int(number) if number else match["name"] or match["quoted"])
        position = match.end()
    if position < len(expression) or not parts:
        raise TemplateError(
            f"{{{{{expression}}}}} is not a path such as customer.name or items[0].id."
        )
    if len(parts) > PATH_PARTS_MAX:
        raise TemplateError(f"{{{{{expression}}}}} has more than {PATH_PARTS_MAX} parts.")
    return tuple(parts)


def compile_value(value: object, depth: int = 0) -> object:
    """Compile every string in a JSON value that holds a template; the rest stays as it is.

    Raises:
        TemplateError: For a template that cannot be read, or nesting over DEPTH_MAX.
    """
    if depth > DEPTH_MAX:
        raise TemplateError(f"Nested more than {DEPTH_MAX} levels deep.")
    if isinstance(value, str):
        return compile_text(value) if has_template(value) else value
    if isinstance(value, dict):
        return {key: compile_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [compile_value(item, depth + 1) for item in value]
    return value


def references(compiled: object) -> Iterator[Reference]:
    """Every reference in a compiled value."""
    if isinstance(compiled, Text):
        yield from compiled.references
    elif isinstance(compiled, dict):
        for item in compiled.values():
            yield from references(item)
    elif isinstance(compiled, list):
        for item in compiled:
            yield from references(item)


def render(compiled: object, lookup: Lookup) -> Any:  # noqa: ANN401 - any JSON value
    """Fill a compiled value in.

    Args:
        compiled: What `compile_value` gave.
        lookup: Gives a reference's value or MISSING.

    Raises:
        TemplateError: `missing_path`, naming the path that is not there and has no default.
    """
    if isinstance(compiled, Text):
        if compiled.whole is not None:
            return resolve(compiled.whole, lookup)
        return "".join(
            part if isinstance(part, str) else as_text(resolve(part, lookup))
            for part in compiled.parts
        )
    if isinstance(compiled, dict):
        return {key: render(item, lookup) for key, item in compiled.items()}
    if isinstance(compiled, list):
        return [render(item, lookup) for item in compiled]
    return compiled


def resolve(reference: Reference, lookup: Lookup) -> Any:  # noqa: ANN401 - any JSON value
    """Look one reference up, with its default.

    Raises:
        TemplateError: `missing_path`.
    """
    value = lookup(reference)
    if value is not MISSING:
        return value
    if reference.default is not MISSING:
        return reference.default
    raise TemplateError(
        f"{{{{{reference.source}}}}}: there is no such path in what this execution has; "
        "give it a default where it may be absent.",
        "missing_path",
    )


def as_text(value: object) -> str:
    """Write a value inside text: null gives nothing, lists and objects compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return orjson.dumps(value).decode()


def walk(root: object, path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Follow a path through objects and lists; MISSING where it leads nowhere."""
    current = root
    for part in path:
        if isinstance(current, Mapping):
            current = current.get(str(part), MISSING)
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            current = current[part]
        else:
            return MISSING
        if current is MISSING:
            return MISSING
    return current
