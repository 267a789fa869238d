"""An action turned round: from a request on the wire back to what it asks for.

`provider.yaml` says how params become a request; the sandbox reads the same templates backwards, so
that what it wants is what the executors send and no second description can drift from it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import jsonschema_rs
import orjson

from nhood.sandbox.sheet import ActionSheet, Kind, ResourceSheet, Sheet
from nhood.sandbox.wire_in import Incoming
from schemas.expression import ABSENT, SPREAD, Template
from schemas.provider import ActionSpec
from schemas.provider_file import ITEMS_PARAM

Place = Literal["path", "query", "json", "form", "header", "file"]
WirePath = tuple[str | int, ...]
Constant = tuple[Place, WirePath, Any]

# What the first word of an action's name says that it does.
_VERBS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("create", "send", "post", "add", "schedule", "upload", "reply"), "create"),
    **dict.fromkeys(("get", "find", "read", "retrieve", "lookup", "download"), "get"),
    **dict.fromkeys(("list", "search", "query"), "list"),
    **dict.fromkeys(("update", "edit", "rename", "set", "move", "assign", "upsert"), "update"),
    **dict.fromkeys(("delete", "remove"), "delete"),
}
_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
_PLAIN: Final = re.compile(r"\s*params\.(\w+)\s*")
_PARAM: Final = re.compile(r"params\.(\w+)")
_ID_NAMES: Final = ("id", "ts", "key", "name", "path")
_NUMBERS: Final = {"integer": int, "number": float}
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
MARK: Final = "\x00"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A place of the request that holds params.

    Attributes:
        plain: The param whose value stands there as it is; None where it is transformed or mixed.
        params: Every param that goes into it.
    """

    place: Place
    path: WirePath
    plain: str | None
    params: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a vendor would call it."""
        return str(self.path[-1]) if self.path else "body"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a request."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the sandbox does with one action.

    Attributes:
        names: How the example's thing is called: `{"id": "10000", "key": "ED-24"}`.
        id_param: The param that names the thing; None where none does.
        constants: Fixed parts of the request, to tell actions with one address apart.
        body: The example's answer.
        items: Path of the list in it.
    """

    spec: ActionSpec
    kind: Kind
    leaves: tuple[Leaf, ...]
    constants: tuple[Constant, ...]
    id_param: str | None
    names: Mapping[str, Any]
    sheet: ActionSheet
    resource: ResourceSheet
    required: frozenset[str]
    validator: jsonschema_rs.Draft202012Validator
    body: Any
    items: WirePath | None

    @property
    def downloads(self) -> bool:
        """Whether the answer is a file's content."""
        return self.spec.request is not None and self.spec.request.download is not None

    @property
    def whole_file(self) -> str | None:
        """The param whose content is the whole body; None where the body is another."""
        return self.spec.request.file if self.spec.request is not None else None

    def fits(self, incoming: Incoming) -> int:
        """Say how well the fixed parts fit: one up for each that is there, one down for each not.

        A part that is another than it should be counts for more than all of them.
        """
        return constants_fit(self.constants, incoming)

    def lacks(self, incoming: Incoming) -> int:
        """Count the required params that are not where they would stand, the path's aside."""
        wanted = [leaf for leaf in self.leaves if leaf.plain in self.required]
        parts = [leaf for leaf in wanted if leaf.place != "path"]
        return sum(dig(_part(incoming, leaf.place, {}), leaf.path) is ABSENT for leaf in parts)

    def knows(self, incoming: Incoming) -> int:
        """Count the params that stand where they would."""
        parts = [leaf for leaf in self.leaves if leaf.place != "path"]
        return sum(dig(_part(incoming, leaf.place, {}), leaf.path) is not ABSENT for leaf in parts)

    def read(self, incoming: Incoming, groups: Mapping[str, str]) -> dict[str, Any]:
        """Give the params that the request holds; those that are transformed as they came."""
        params: dict[str, Any] = {}
        properties = self.spec.params["properties"]
        for leaf in self.leaves:
            value = dig(_part(incoming, leaf.place, groups), leaf.path)
            if value is ABSENT:
                continue
            if leaf.plain is not None:
                schema = properties.get(leaf.plain, {})
                if leaf.place == "query" and schema.get("type") == "array":
                    value = incoming.query_list(leaf.name) or value
                elif leaf.place in ("query", "form", "path", "header"):
                    value = _typed(value, schema)
                params[leaf.plain] = value
            else:
                for name in leaf.params:
                    params.setdefault(name, value)
        return params

    def troubles(self, params: Mapping[str, Any]) -> Iterator[Trouble]:
        """Say what is missing or wrong, as far as the params' schema knows."""
        wire = {leaf.plain: leaf.name for leaf in self.leaves if leaf.plain is not None}
        for name in sorted(self.required):
            if name not in params:
                yield Trouble(wire.get(name, name), "is required")
        if not self.validator.is_valid(params):
            for error in self.validator.iter_errors(params):
                where = str(error.instance_path[0]) if error.instance_path else ""
                yield Trouble(wire.get(where, where) or "request", str(error.message)[:200])


def constants_fit(constants: Sequence[Constant], incoming: Incoming) -> int:
    """Say how well the fixed parts of a request fit; see `Plan.fits`."""
    score = 0
    for place, path, value in constants:
        found = dig(_part(incoming, place, {}), path)
        if found is not ABSENT and str(found) != str(value):
            return -len(constants) - 1
        score += -1 if found is ABSENT else 1
    return score


def plan_action(spec: ActionSpec, sheet: Sheet) -> Plan | None:
    """Turn an action round; None where a hook builds its requests."""
    if spec.request is None:
        return None
    raw = sheet.source["actions"][spec.id]["request"]
    own = sheet.actions.get(spec.id, ActionSheet())
    resource = sheet.resources.get(spec.resource, ResourceSheet())
    leaves, constants = _walk(raw, spec.params["properties"])
    plain = frozenset(leaf.plain for leaf in leaves if leaf.plain is not None)
    reachable = frozenset(name for leaf in leaves for name in leaf.params)
    kind = own.kind or _VERBS.get(spec.id.partition("_")[0], "do")
    id_param = own.id_param or _id_param(spec, resource, leaves)
    if kind == "get" and id_param is None:
        kind = "list"
    return Plan(
        spec=spec,
        kind=kind,
        leaves=tuple(leaves),
        constants=tuple(constants),
        id_param=id_param,
        names=_names(spec, resource, id_param),
        sheet=own,
        resource=resource,
        required=frozenset(spec.params.get("required", ())) & reachable,
        validator=_validator(spec.params, plain, reachable),
        body=spec.example.body,
        items=_items(spec),
    )


def _walk(raw: Mapping[str, Any], declared: Iterable[str]) -> tuple[list[Leaf], list[Constant]]:
    """Find the places of params and the fixed parts of a request as it is written."""
    constants: list[Constant] = []
    body: Place = "form" if "form" in raw else "json"
    passed: Place = "query" if raw["method"] == "GET" else body
    leaves = [Leaf(passed, (name,), name, (name,)) for name in _passed(raw, declared)]
    named = (_PARAM.findall(reference)[:1] for reference in _REFERENCE.findall(raw["path"]))
    leaves += [Leaf("path", (name,), name, (name,)) for found in named for name in found]
    headers = {**raw.get("headers", {}), **raw.get("json_headers", {})}
    sections = raw.get("multipart", {}).get("parts", {})
    held = {name: one["file"] for name, one in sections.items() if _is_file(one)}
    if "file" in raw:
        held[""] = raw["file"]
    parts: list[tuple[Place, Any]] = [
        ("query", raw.get("query", {})),
        (body, raw.get(body, {})),
        ("form", {name: one for name, one in sections.items() if name not in held}),
        ("file", held),
        ("header", {name.lower(): value for name, value in headers.items()}),
    ]
    for place, tree in parts:
        for path, value in nodes(tree, ()):
            names = tuple(dict.fromkeys(_PARAM.findall(value))) if isinstance(value, str) else ()
            whole = bool(path) and path[-1] == SPREAD  # whatever stands around it
            path = tuple(step for step in path if step != SPREAD)
            if names and whole:
                leaves.append(Leaf(place, path, None, names))
            elif names:
                leaves.append(Leaf(place, path, _plain(value), names))
            elif place != "header" and not (isinstance(value, str) and "${" in value):
                constants.append((place, path, value))
    return leaves, constants


def _is_file(part: object) -> bool:
    return isinstance(part, Mapping) and part.keys() == {"file"}


def _passed(raw: Mapping[str, Any], declared: Iterable[str]) -> list[str]:
    """Name the params that stand in the request under their own names."""
    passed = raw.get("pass", ())
    if "*" not in passed:
        return [name for name in passed if not name.startswith("*")]
    text = orjson.dumps({key: value for key, value in raw.items() if key != "pass"}).decode()
    named = set(_PARAM.findall(text))
    return [name for name in declared if name not in named and name != ITEMS_PARAM]


def nodes(tree: Any, path: WirePath) -> Iterator[tuple[WirePath, Any]]:  # noqa: ANN401 - JSON
    """Give what is neither object nor list in a tree, with where it lies."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from nodes(value, (*path, str(key)))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from nodes(value, (*path, number))
    else:
        yield path, tree


def _plain(text: str) -> str | None:
    whole = _REFERENCE.fullmatch(text)
    match = _PLAIN.fullmatch(whole.group(1)) if whole else None
    return match.group(1) if match else None


def _id_param(spec: ActionSpec, resource: ResourceSheet, leaves: Iterable[Leaf]) -> str | None:
    paths = [leaf.plain for leaf in leaves if leaf.place == "path" and leaf.plain]
    if paths:
        return paths[-1]
    one = resource.singular or spec.resource.removesuffix("s")
    for name in (one, f"{one}_id", f"{one}_key", *_ID_NAMES[:3]):
        if name in spec.params["properties"]:
            return name
    return None


def _names(spec: ActionSpec, resource: ResourceSheet, id_param: str | None) -> dict[str, Any]:
    """Say what the example's thing is called, by the names that its result lifts out."""
    given = spec.prepare(spec.example.params)
    roots = {"body": spec.example.body, "params": given, "status": 200, "headers": {}}
    names: dict[str, Any] = {}
    for name in resource.names:
        template = spec.result.get(name)
        value = template.find(roots) if isinstance(template, Template) else ABSENT
        if value is ABSENT:
            value = _lying_in(spec.example.body, name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            names[name] = value
    if not names and id_param is not None and id_param in given:
        names[resource.names[0]] = given[id_param]
    return names


def _lying_in(body: Any, name: str) -> Any:  # noqa: ANN401 - JSON
    """Find a name in an answer or in the thing that it wraps."""
    if not isinstance(body, Mapping):
        return ABSENT
    if name in body:
        return body[name]
    inner = [value for value in body.values() if isinstance(value, Mapping)]
    return inner[0].get(name, ABSENT) if len(inner) == 1 else ABSENT


def _items(spec: ActionSpec) -> WirePath | None:
    if spec.pages is not None:
        return spec.pages.items.paths[0].steps
    body = spec.example.body
    if isinstance(body, list):
        return ()
    if isinstance(body, Mapping):
        for key, value in body.items():
            if isinstance(value, list) and value and isinstance(value[0], Mapping):
                return (key,)
    return None


def _validator(
    schema: Mapping[str, Any], plain: frozenset[str], reachable: frozenset[str]
) -> jsonschema_rs.Draft202012Validator:
    """Compile the part of a params' schema that can be checked on the wire."""
    properties = schema["properties"]
    reduced: dict[str, Any] = {
        "type": "object",
        "properties": {name: properties[name] for name in plain if name in properties},
    }
    for key in ("anyOf", "oneOf", "allOf", "not"):
        named = _required_in(schema.get(key, []))
        if key in schema and named <= reachable:
            reduced[key] = schema[key]
    for key in ("$defs", "definitions"):
        if key in schema:
            reduced[key] = schema[key]
    return jsonschema_rs.Draft202012Validator(reduced, validate_formats=True)


def _required_in(node: Any) -> frozenset[str]:  # noqa: ANN401 - JSON
    if isinstance(node, Mapping):
        own = frozenset(node.get("required", ())) if isinstance(node.get("required"), list) else ()
        return frozenset(own).union(*(_required_in(value) for value in node.values()))
    if isinstance(node, list):
        return frozenset().union(*(_required_in(value) for value in node))
    return frozenset()


def _part(incoming: Incoming, place: Place, groups: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    if place == "path":
        return groups
    if place == "query":
        return incoming.query_nested()
    if place == "header":
        return {name: read_header(value) for name, value in incoming.headers.items()}
    if place == "file":
        return {name: {"text": "", "name": file.name} for name, file in incoming.files.items()}
    return incoming.data


def read_header(value: str) -> Any:  # noqa: ANN401 - JSON
    """Read a header that is JSON, as Dropbox has them."""
    if not value.startswith("{"):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def dig(value: Any, path: WirePath) -> Any:  # noqa: ANN401 - JSON values
    """Give what lies at a path, or ABSENT."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step, ABSENT)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return ABSENT
    return value


def _typed(value: Any, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON values
    """Read text of a query or form as the type that the param has."""
    if isinstance(value, Mapping):
        inner = schema.get("properties", {})
        return {name: _typed(item, inner.get(name, {})) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    kind = schema.get("type")
    return _typed_text(value, kind) if isinstance(value, str) and isinstance(kind, str) else value


def _typed_text(value: str, kind: str) -> Any:  # noqa: ANN401 - JSON values
    if kind == "boolean":
        return _TRUTH.get(value.lower(), value)
    if kind in _NUMBERS:
        try:
            return _NUMBERS[kind](value)
        except ValueError:
            return value
    return value


def path_pattern(source: str) -> tuple[str, re.Pattern[str] | None]:
    """Turn an address template into the path that it gives under the sandbox.

    Returns:
        The path where it is always the same, and else a pattern with a group for each variable.
    """
    marked = _REFERENCE.sub(lambda m: f"{MARK}{_group(m.group(1))}{MARK}", source)
    if marked.startswith(MARK):  # a variable that holds the origin: instance_url
        path = marked[marked.index(MARK, 1) + 1 :]
    elif "://" in marked:
        path = "/" + marked.partition("://")[2].partition("/")[2]
    else:
        path = marked
    path = path.partition("?")[0]
    if MARK not in path:
        return path, None
    pieces = re.split(f"{MARK}([^{MARK}]*){MARK}", path)
    pattern, seen = "", set[str]()
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            pattern += re.escape(piece)
        elif piece in seen:
            pattern += f"(?P={piece})"
        else:
            pattern += f"(?P<{piece}>[^/]+?)"
            seen.add(piece)
    return path, re.compile(pattern)


def _group(reference: str) -> str:
    found = re.search(r"(?:params|connection|subscription)\.(\w+)", reference)
    return found.group(1) if found else "value"
