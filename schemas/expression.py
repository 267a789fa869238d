"""References `${a.b[0].c}` and CEL conditions, as provider files use them; pure.

A reference that is the whole text keeps its value's type; inside text it becomes text. What a
reference can say:

    ${params.channel}                       a path from a root: names, [0], ['a key']
    ${body.error ?? body.message ?? 'none'} the first that is there and not null; literals in ' '
    ${params.description | adf}             then transforms by name (`schemas.transforms`)

A path that is not there is an error that names it. In a request body, query or form, though, a
property whose reference goes to a param that was not given is left out; an object or list in which
every reference was left out is left out whole, with the constants in it. The properties of an
object under the name `...` go into the object around it. Rendered text is never evaluated again.
Everything is compiled once; compiled things are immutable.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.cel_engine import compile_cel
from schemas.errors import InvalidInput
from schemas.transforms import TRANSFORMS, as_text

Roots = Mapping[str, Any]

_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>'[^']*')|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<word>true|false|null)(?![\w.])
    |(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_][\w-]*|\[\d+\]|\['[^']+'\])*)|(?P<fall>\?\?)|(?P<pipe>\|))""",
    re.VERBOSE,
)
_STEP: Final = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']+)'\]")
_WORDS: Final = {"true": True, "false": False, "null": None}

OPTIONAL_ROOTS: Final = frozenset({"params"})
SPREAD: Final = "..."


class _Absent:
    """The type of ABSENT."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = _Absent()
"""What a path that is not there gives (null is a value, this is none)."""


class MissingPath(InvalidInput):
    """A reference goes to a path that is not there; `path` names it."""

    default_code = "missing_path"

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not there")
        self.path = path


class Path:
    """One path from a root, such as `body.tickets[0].id`."""

    __slots__ = ("root", "source", "steps")

    def __init__(self, source: str) -> None:
        root = re.match(r"\w+", source)
        if root is None:
            raise InvalidInput(f"{source!r} is not a path", code="bad_reference")
        self.source = source
        self.root = root.group()
        self.steps: tuple[str | int, ...] = tuple(
            int(index) if index else name or key
            for name, index, key in _STEP.findall(source[root.end() :])
        )

    def find(self, roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        """Give the value, or ABSENT."""
        value: Any = roots.get(self.root, ABSENT)
        for step in self.steps:
            # A dict is what it nearly always is, and told without asking the abstract class.
            if type(value) is dict or isinstance(value, Mapping):
                value = value.get(step, ABSENT)
            elif isinstance(step, int) and isinstance(value, list) and step < len(value):
                value = value[step]
            else:
                return ABSENT
        return value


class _Constant:
    """A literal in a reference."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def find(self, _roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        return self.value


class Reference:
    """What stands between `${` and `}`."""

    __slots__ = ("choices", "optional", "paths", "source", "transforms")

    def __init__(self, source: str) -> None:
        self.source = source.strip()
        choices, names = _parse_reference(self.source)
        unknown = [name for name in names if name not in TRANSFORMS]
        if unknown:
            known = ", ".join(sorted(TRANSFORMS))
            raise InvalidInput(f"No transform {unknown[0]!r}; known: {known}", code="bad_reference")
        self.choices = choices
        self.transforms = tuple(TRANSFORMS[name] for name in names)
        self.paths = tuple(choice for choice in choices if isinstance(choice, Path))
        self.optional = bool(self.paths) and all(p.root in OPTIONAL_ROOTS for p in self.paths)

    def find(self, roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        """Give the value after `??` and transforms, or ABSENT."""
        value: Any = ABSENT
        for choice in self.choices:
            found = choice.find(roots)
            if found is not ABSENT:
                value = found
                if found is not None:
                    break
        if value is ABSENT or not self.transforms or value is None:
            return value
        for transform in self.transforms:
            value = transform(value)
        return value


def _parse_reference(source: str) -> tuple[tuple[Path | _Constant, ...], list[str]]:
    choices: list[Path | _Constant] = []
    names: list[str] = []
    expect, place, target = True, 0, "choice"
    while place < len(source):
        match = _TOKEN.match(source, place)
        if match is None:
            break
        place = match.end()
        kind, token = str(match.lastgroup), match.group().strip()
        if kind in ("fall", "pipe"):
            if expect or (kind == "fall" and target == "transform"):
                break
            expect, target = True, "choice" if kind == "fall" else "transform"
        elif not expect:
            break
        else:
            expect = False
            if target == "transform":
                names.append(token)
            else:
                choices.append(_choice(kind, token))
    else:
        if choices and not expect:
            return tuple(choices), names
    raise InvalidInput(f"'${{{source}}}' is not a reference", code="bad_reference")


def _choice(kind: str, token: str) -> Path | _Constant:
    if kind == "path":
        return Path(token)
    if kind == "text":
        return _Constant(token[1:-1])
    if kind == "word":
        return _Constant(_WORDS[token])
    return _Constant(float(token) if "." in token else int(token))


class Template:
    """A text with references in it, compiled; a text without any is a constant."""

    __slots__ = ("_alone", "_parts", "optional", "references", "source")

    def __init__(self, source: str) -> None:
        """Compile.

        Raises:
            InvalidInput: If a reference cannot be read.
        """
        self.source = source
        parts: list[str | Reference] = []
        place = 0
        for match in _REFERENCE.finditer(source):
            if match.start() > place:
                parts.append(source[place : match.start()])
            parts.append(Reference(match.group(1)))
            place = match.end()
        if place < len(source):
            parts.append(source[place:])
        if "${" in source[place:]:
            raise InvalidInput(f"{source!r} has a reference that never ends", code="bad_reference")
        self._parts = tuple(parts)
        self._alone = parts[0] if len(parts) == 1 and isinstance(parts[0], Reference) else None
        self.references = tuple(part for part in parts if isinstance(part, Reference))
        self.optional = bool(self.references) and any(r.optional for r in self.references)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every path that the text refers to."""
        return tuple(path for reference in self.references for path in reference.paths)

    @property
    def is_constant(self) -> bool:
        """Whether nothing is referred to."""
        return not self.references

    def find(self, roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        """Give the rendered value, or ABSENT where a path is not there."""
        if self._alone is not None:
            return self._alone.find(roots)
        texts: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part.find(roots)
            if value is ABSENT:
                return ABSENT
            texts.append(as_text(value))
        return "".join(texts)

    def render(self, roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        """Give the rendered value.

        Raises:
            MissingPath: Where a path is not there.
        """
        value = self.find(roots)
        if value is ABSENT:
            raise MissingPath(self.missing(roots))
        return value

    def text(self, roots: Roots) -> str:
        """Give the rendered value as text.

        Raises:
            MissingPath: Where a path is not there.
        """
        return as_text(self.render(roots))

    def text_with(self, roots: Roots, encode: Callable[[str], str]) -> str:
        """Give the rendered value as text, each referred value encoded (for a URL's path).

        Raises:
            MissingPath: Where a path is not there.
        """
        texts: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = part.find(roots)
            if value is ABSENT:
                raise MissingPath(part.source)
            texts.append(encode(as_text(value)))
        return "".join(texts)

    def missing(self, roots: Roots) -> str:
        """Name the first reference that is not there, or give the source."""
        for reference in self.references:
            if reference.find(roots) is ABSENT:
                return reference.source
        return self.source

    def __repr__(self) -> str:
        return f"Template({self.source!r})"


class Tree:
    """A JSON-like value with templates in it: a request body, query or form, compiled."""

    __slots__ = ("_node", "paths")

    def __init__(self, value: object) -> None:
        """Compile.

        Raises:
            InvalidInput: If a reference cannot be read.
        """
        found: list[Path] = []
        self._node = _compile(value, found)
        self.paths = tuple(found)

    def render(self, roots: Roots) -> Any:  # noqa: ANN401 - JSON values
        """Give the rendered value; properties of params that were not given are left out.

        Raises:
            MissingPath: Where a path of another root than params is not there.
        """
        value = _render(self._node, roots)
        if value is ABSENT:
            return {} if isinstance(self._node, _Object) else None
        return value


class _Object:
    __slots__ = ("items", "templated")

    def __init__(self, items: tuple[tuple[str, Any], ...], *, templated: bool) -> None:
        self.items = items
        self.templated = templated


class _List:
    __slots__ = ("items", "templated")

    def __init__(self, items: tuple[Any, ...], *, templated: bool) -> None:
        self.items = items
        self.templated = templated


def _compile(value: object, found: list[Path]) -> Any:  # noqa: ANN401 - a node
    if isinstance(value, str):
        template = Template(value)
        if template.is_constant:
            return value
        found.extend(template.paths)
        return template
    before = len(found)
    if isinstance(value, Mapping):
        items = tuple((str(key), _compile(item, found)) for key, item in value.items())
        return _Object(items, templated=len(found) > before)
    if isinstance(value, list | tuple):
        nodes = tuple(_compile(item, found) for item in value)
        return _List(nodes, templated=len(found) > before)
    return value


def _render(node: Any, roots: Roots) -> Any:  # noqa: ANN401 - a node, a JSON value
    if isinstance(node, Template):
        value = node.find(roots)
        if value is ABSENT and not node.optional:
            raise MissingPath(node.missing(roots))
        return value
    if isinstance(node, _Object):
        return _render_object(node, roots)
    if isinstance(node, _List):
        kept: list[Any] = []
        filled = not node.templated
        for child in node.items:
            value = _render(child, roots)
            if value is not ABSENT:
                kept.append(value)
                filled = filled or _refers(child)
        return kept if filled else ABSENT
    return node


def _render_object(node: _Object, roots: Roots) -> Any:  # noqa: ANN401 - a JSON value
    rendered: dict[str, Any] = {}
    filled = not node.templated
    for key, child in node.items:
        value = _render(child, roots)
        if value is ABSENT:
            continue
        filled = filled or _refers(child)
        if key != SPREAD:
            rendered[key] = value
        elif isinstance(value, Mapping):
            rendered.update(value)
    return rendered if filled else ABSENT


def _refers(node: Any) -> bool:  # noqa: ANN401 - a node
    return isinstance(node, Template) or (isinstance(node, _Object | _List) and node.templated)


class Condition:
    """A CEL condition, compiled; what it refers to and is not there makes it not hold.

    CEL copies what it is given, so only the top-level keys of `body` that the condition names are
    handed over: a condition on `body.ok` costs the same for a large answer as for a small one.
    """

    __slots__ = ("_keys", "_program", "_variables", "source")

    def __init__(self, source: str) -> None:
        """Compile.

        Raises:
            InvalidInput: If the text is not CEL.
        """
        self.source = source
        self._program = compile_cel(source)
        self._variables = frozenset(self._program.variables())
        self._keys = {name: _top_keys(source, name) for name in self._variables}

    @property
    def variables(self) -> frozenset[str]:
        """The roots that the condition reads."""
        return self._variables

    def holds(self, roots: Roots) -> bool:
        """Say whether the condition is true; an error inside counts as false."""
        context: dict[str, Any] = {}
        for name in self._variables:
            value = roots.get(name)
            keys = self._keys[name]
            if keys is not None and isinstance(value, Mapping):
                value = {key: value[key] for key in keys if key in value}
            context[name] = value
        try:
            return self._program.execute(context) is True
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError):
            return False


def _top_keys(source: str, name: str) -> tuple[str, ...] | None:
    """Name the top-level keys of a root that a condition reads; None where it may read any."""
    use = rf"(?<![\w.'\"]){name}\b(?:\.([A-Za-z_]\w*+)(?!\s*\()|\[['\"]([^'\"]+)['\"]\])?"
    keys = [dotted or quoted for dotted, quoted in re.findall(use, source)]
    return tuple(dict.fromkeys(keys)) if keys and all(keys) else None
