"""Reads one `provider.yaml`: shape by `provider.schema.json`, then what a schema cannot say.

Checked besides the shape: each reference can be read and goes to something that is there in its
place (a declared variable, a declared param, the answer), conditions are CEL, names that refer to
each other meet. Every problem of a file is told at once.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import orjson
import yaml

from schemas import files
from schemas.auth_file import read_auth
from schemas.errors import InvalidInput, Problem
from schemas.expression import Template, Tree
from schemas.file_reader import ANSWER, Reader
from schemas.params import ParamsChecker, check_schema, place_of
from schemas.provider import (
    ActionSpec,
    ApiSpec,
    CheckSpec,
    ErrorRule,
    Example,
    FailureShape,
    Hooks,
    LimitSpec,
    PagesSpec,
    ProviderSpec,
    RetryHint,
)
from schemas.provider_cache import Cached
from schemas.provider_request import MultipartSpec, RequestSpec
from schemas.settings import ProviderOverride

ITEMS_PARAM: Final = "max_items"
ITEMS_MAX: Final = 1_000
"""Items that one list action collects at most: as many as `for_each` takes (design §12)."""

_SCHEMA: Final = Path(__file__).with_name("provider.schema.json")
_REQUEST: Final = frozenset({"params", "connection", "effect_key"})
_PATH: Final = frozenset({"params", "connection"})
_RESULT: Final = ANSWER | {"params"}
_MESSAGE: Final = ANSWER | {"params", "code", "text"}
_READS: Final = frozenset({"GET", "HEAD"})
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})  # RFC 9110 §9.2.2
_COLLECT: Final = {
    "type": "integer",
    "minimum": 1,
    "maximum": ITEMS_MAX,
    "description": "Collect up to this many items over several pages; left out: one page.",
}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_provider(path: Path, override: ProviderOverride) -> ProviderSpec:
    """Read a provider file.

    Args:
        path: `<folder>/<slug>/provider.yaml`.
        override: Where the provider is reached instead, from the settings.

    Raises:
        InvalidInput: With every problem of the file.
    """
    name = f"{path.parent.name}/{path.name}"
    source = path.read_bytes()
    cached = Cached(path, source)
    known = cached.find()
    data = expanded(_parse(source, name)) if known is None else known
    auth = data["auth"]
    reader = Reader(name, auth.get("variables", {}))
    if data["slug"] != path.parent.name:
        reader.wrong("slug", f"is {data['slug']!r}, but the folder is {path.parent.name!r}")
    actions = Actions(data["actions"], path.parent, reader)
    spec = ProviderSpec(
        slug=data["slug"],
        name=data["name"],
        category=data["category"],
        status=data["status"],
        resources=tuple(data["resources"]),
        notes=tuple(data.get("notes", ())),
        auth=read_auth(auth, reader, override),
        api=_api(data["api"], reader, override),
        limits=tuple(_limit(item) for item in data.get("limits", ())),
        errors=_rules(data["errors"], "errors", reader),
        actions=actions,
        triggers=data.get("triggers"),
        polls=data.get("polls"),
        folder=path.parent,
        hooks=Hooks(data["slug"], path.parent / "hooks.py"),
    )
    if known is None:
        _check_names(spec, reader)
    if reader.problems:
        raise _invalid(name, reader.problems)
    if known is None:
        cached.keep(data)
    return spec


class Actions(Mapping[str, ActionSpec]):
    """The actions of a provider, each compiled when it is first asked for.

    A process uses few of the thousand that there are. What is wrong with one is noted in `reader`.
    """

    __slots__ = ("_data", "_folder", "_made", "_reader")

    def __init__(self, data: Mapping[str, Any], folder: Path, reader: Reader) -> None:
        self._data = data
        self._folder = folder
        self._reader = reader
        self._made: dict[str, ActionSpec] = {}

    def __getitem__(self, name: str) -> ActionSpec:
        """Give an action."""
        made = self._made.get(name)
        if made is None:
            reader = Reader(self._reader.file, self._reader.variables)  # threads may come together
            made = _action(name, self._data[name], reader, self._folder)
            self._reader.problems.extend(reader.problems)
            self._made[name] = made
        return made

    def __iter__(self) -> Iterator[str]:
        """Go through the names, in the file's order."""
        return iter(self._data)

    def __len__(self) -> int:
        """Count them."""
        return len(self._data)

    def __contains__(self, name: object) -> bool:
        """Say whether there is one of this name; compiles nothing."""
        return name in self._data


def _parse(source: bytes, name: str) -> Mapping[str, Any]:
    try:
        data = yaml.load(source, _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        problem = Problem(name, f"is not YAML:{line} {getattr(error, 'problem', error)}")
        raise _invalid(name, [problem]) from None
    problems = [
        Problem(f"{name}: {place_of(error.instance_path) or 'file'}", error.message)
        for error in _validator().iter_errors(data)
    ]
    if problems:
        raise _invalid(name, problems)
    return data  # type: ignore[no-any-return]  # an object, by the schema


def expanded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write requests that are given as GraphQL documents as the JSON posts that they are.

    Args:
        data: A provider file as it is written.

    Returns:
        The same with `{graphql: document, variables: …}` as POST of `{query, variables}` to
        `api.graphql`; actions whose document is a query are reads.
    """
    actions = {name: _expanded(item, data["api"]) for name, item in data["actions"].items()}
    return {**data, "actions": actions}


def _expanded(action: Mapping[str, Any], api: Mapping[str, Any]) -> Mapping[str, Any]:
    request = action.get("request", {})
    if "graphql" not in request:
        return action
    document = " ".join(request["graphql"].split())
    post = {"query": document, "variables": request.get("variables", {})}
    sent = {"method": "POST", "path": api.get("graphql", "/"), "json": post}
    return {"read_only": document.startswith("query"), **action, "request": sent}


@functools.cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(orjson.loads(_SCHEMA.read_bytes()))


def _invalid(name: str, problems: list[Problem]) -> InvalidInput:
    text = "; ".join(f"{p.place}: {p.message}" for p in problems)
    return InvalidInput(f"{name} cannot be used: {text}", problems=problems, code="bad_provider")


def _api(data: Mapping[str, Any], reader: Reader, override: ProviderOverride) -> ApiSpec:
    failure = data.get("failure", {})
    base = (override.base_url or data["base_url"]).rstrip("/")
    return ApiSpec(
        base_url=reader.template(base, "api.base_url", frozenset({"connection"})),
        headers=reader.templates(data.get("headers", {}), "api.headers", _REQUEST - {"params"}),
        failure=FailureShape(
            when=reader.optional_condition(failure, "when", "api.failure"),
            codes=_templates(failure.get("code", ()), "api.failure.code", reader),
            texts=_templates(failure.get("text", ()), "api.failure.text", reader),
        ),
        retry_after=tuple(
            read_hint(item, f"api.retry_after[{number}]", reader)
            for number, item in enumerate(data.get("retry_after", ["${headers['retry-after']}"]))
        ),
        retryable=frozenset(data.get("retryable", ())),
        nesting=data.get("nesting", "json"),
        graphql=data.get("graphql"),
        output=reader.optional_template(data, "output", "api", ANSWER),
    )


def _templates(values: list[str], place: str, reader: Reader) -> tuple[Template, ...]:
    return tuple(reader.template(v, f"{place}[{n}]", ANSWER) for n, v in enumerate(values))


def read_hint(data: Any, place: str, reader: Reader) -> RetryHint:  # noqa: ANN401 - text or object
    """Compile where a vendor says how long to wait."""
    if isinstance(data, str):
        return RetryHint(reader.template(data, place, ANSWER))
    value = reader.template(data["value"], place, ANSWER)
    return RetryHint(value, data.get("form", "auto"))


def _limit(data: Mapping[str, Any]) -> LimitSpec:
    return LimitSpec(
        key=data["key"],
        rate=float(data["rate"]),
        per_seconds=float(data["per_seconds"]),
        burst=data.get("burst"),
        actions=frozenset(data.get("actions", ())),
        headers={name: header.lower() for name, header in data.get("headers", {}).items()},
    )


def _rules(data: list[Any], place: str, reader: Reader) -> tuple[ErrorRule, ...]:
    return tuple(_rule(item, f"{place}[{number}]", reader) for number, item in enumerate(data))


def _rule(data: Mapping[str, Any], place: str, reader: Reader) -> ErrorRule:
    statuses, codes = data.get("status", []), data.get("code", [])
    hint = data.get("retry_after")
    return ErrorRule(
        outcome=data["outcome"],
        statuses=frozenset(statuses if isinstance(statuses, list) else [statuses]),
        codes=frozenset(codes if isinstance(codes, list) else [codes]),
        when=reader.optional_condition(data, "when", place),
        code=reader.optional_template(data, "as", place, _MESSAGE),
        message=_message(data.get("message"), f"{place}.message", reader),
        retry_after=read_hint(hint, f"{place}.retry_after", reader) if hint else None,
        may_have_happened=data.get("may_have_happened", False),
    )


def _message(text: str | None, place: str, reader: Reader) -> Template | None:
    # A provider's message may name a param that only some of its actions have.
    known, reader.params = reader.params, _AnyName()
    try:
        return None if text is None else reader.template(text, place, _MESSAGE)
    finally:
        reader.params = known


class _AnyName(frozenset[str]):
    """A set that has every name."""

    def __contains__(self, _name: object) -> bool:
        return True


def _action(name: str, data: Mapping[str, Any], reader: Reader, folder: Path) -> ActionSpec:
    place = f"actions.{name}"
    params = _params(data, place, reader)
    reader.declare(params["properties"])
    request = data.get("request")
    spec = _request(request, f"{place}.request", reader) if request else None
    method = spec.method if spec else "POST"
    read_only = data.get("read_only", method in _READS)
    hook = data.get("hook")
    if hook and not re.search(rf"^def {hook}\(", _source(folder / "hooks.py"), re.MULTILINE):
        reader.wrong(f"{place}.hook", f"hooks.py defines no {hook}")
    example = data["example"]["response"]
    action = ActionSpec(
        id=name,
        resource=data["resource"],
        summary=data["summary"],
        description=data.get("description", ""),
        doc=data["doc"],
        operation_id=data.get("operation_id"),
        method=method,
        idempotent=data.get("idempotent", read_only or method in _IDEMPOTENT),
        read_only=read_only,
        scopes=tuple(data.get("scopes", ())),
        params=params,
        defaults={k: v["default"] for k, v in params["properties"].items() if "default" in v},
        aliases={a: k for k, v in params["properties"].items() for a in v.get("aliases", ())},
        synonyms={k: v["synonyms"] for k, v in params["properties"].items() if "synonyms" in v},
        request=spec,
        success=reader.optional_condition(data, "success", place),
        failure_when=reader.optional_condition(data, "failure_when", place),
        errors=_rules(data.get("errors", []), f"{place}.errors", reader),
        result=reader.templates(data.get("result", {}), f"{place}.result", _RESULT),
        output=reader.optional_template(data, "output", place, _RESULT),
        idempotency=next(iter(data.get("idempotency", {}).items()), None),
        pages=_pages(data.get("pages"), f"{place}.pages", reader),
        check=_check(data.get("check"), f"{place}.check", reader),
        hook=hook,
        example=Example(
            params=data["example"]["params"],
            status=example["status"],
            headers={k.lower(): v for k, v in example.get("headers", {}).items()},
            body=example.get("body"),
            earlier=tuple(
                (item["status"], item.get("body")) for item in data["example"].get("earlier", ())
            ),
        ),
        notes=tuple(data.get("notes", ())),
        checker=ParamsChecker(params),
        files=files.declared(params),
    )
    reader.declare(())
    return action


def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _params(data: Mapping[str, Any], place: str, reader: Reader) -> Mapping[str, Any]:
    params: Mapping[str, Any] = files.expanded(data["params"])
    if "pages" in data:
        params = {**params, "properties": {**params["properties"], ITEMS_PARAM: _COLLECT}}
    try:
        check_schema(params)
    except InvalidInput as error:
        reader.wrong(f"{place}.params", error.public)
    for name in params.get("required", ()):
        if name not in params["properties"]:
            reader.wrong(f"{place}.params.required", f"{name} is not among the properties")
    return params


def _request(data: Mapping[str, Any], place: str, reader: Reader) -> RequestSpec:
    method = data["method"]
    parts = {key: data[key] for key in ("query", "json", "form") if key in data}
    passed = [name for name in data.get("pass", ()) if not name.startswith("*")]
    if "*" in data.get("pass", ()):
        named = _params_named(data)
        passed = [n for n in reader.declared if n not in named and n != ITEMS_PARAM]
    if passed:
        key = "form" if "form" in parts else "json"
        key = "query" if method in _READS else key
        own = {name: f"${{params.{name}}}" for name in passed}
        parts[key] = {**own, **parts.get(key, {})}
    trees: dict[str, Tree | None] = {
        key: reader.tree(parts[key], f"{place}.{key}", _REQUEST) if key in parts else None
        for key in ("query", "json", "form")
    }
    return RequestSpec(
        method=method,
        path=reader.template(data["path"], f"{place}.path", _PATH),
        headers=reader.templates(data.get("headers", {}), f"{place}.headers", _REQUEST),
        passes=tuple(name[1:] for name in data.get("pass", ()) if name.startswith("*_")),
        query=trees["query"],
        json=trees["json"],
        form=trees["form"],
        base_url=reader.optional_template(data, "base_url", place, frozenset({"connection"})),
        proof=data.get("proof", ""),
        file=_file_param(data.get("file"), f"{place}.file", reader),
        multipart=_multipart(data.get("multipart"), f"{place}.multipart", reader),
        json_headers={
            name: reader.tree(value, f"{place}.json_headers.{name}", _REQUEST)
            for name, value in data.get("json_headers", {}).items()
        },
        download=reader.optional_template(data, "download", place, _REQUEST - {"effect_key"}),
    )


def _multipart(data: Mapping[str, Any] | None, place: str, reader: Reader) -> MultipartSpec | None:
    if data is None:
        return None
    parts, held = {}, {}
    for name, value in data["parts"].items():
        if isinstance(value, Mapping) and value.keys() == {"file"}:
            held[name] = _file_param(value["file"], f"{place}.parts.{name}", reader) or ""
        else:
            parts[name] = reader.tree(value, f"{place}.parts.{name}", _REQUEST)
    return MultipartSpec(data.get("kind", "form-data"), parts, held)


def _file_param(template: str | None, place: str, reader: Reader) -> str | None:
    """Name the param that a `file:` refers to; that it is a file is seen by its schema."""
    if template is None:
        return None
    match = re.fullmatch(r"\$\{params\.(\w+)\}", template)
    if match is None or match[1] not in reader.declared:
        reader.wrong(place, f"{template!r} must be one declared param, such as ${{params.file}}")
        return None
    return match[1]


def _params_named(data: Mapping[str, Any]) -> set[str]:
    """Name the params that a request refers to."""
    text = orjson.dumps({k: v for k, v in data.items() if k != "pass"}).decode()
    return set(re.findall(r"params\.(\w+)", text))


def _pages(data: Mapping[str, Any] | None, place: str, reader: Reader) -> PagesSpec | None:
    if data is None:
        return None
    if data.get("param") is not None and data["param"] not in reader.params:
        reader.wrong(f"{place}.param", f"{data['param']} is not declared in the action's params")
    items = reader.template(data["items"], f"{place}.items", ANSWER)
    if len(items.paths) != 1 or items.paths[0].root != "body":
        reader.wrong(f"{place}.items", "must be one path in the body")
    return PagesSpec(
        items=items,
        param=data.get("param"),
        next=reader.optional_template(data, "next", place, ANSWER),
        next_url=reader.optional_template(data, "next_url", place, ANSWER | {"connection"}),
        step=data.get("step", "cursor"),
        more=reader.optional_condition(data, "more", place),
    )


def _check(data: Mapping[str, Any] | None, place: str, reader: Reader) -> CheckSpec | None:
    if data is None:
        return None
    answer = data.get("answer")
    return CheckSpec(
        action=data["action"],
        params=reader.tree(data["params"], f"{place}.params", _REQUEST),
        found_when=reader.condition(data["found_when"], f"{place}.found_when"),
        absent_when=reader.condition(data["absent_when"], f"{place}.absent_when"),
        answer=None if answer is None else reader.tree(answer, f"{place}.answer", _RESULT),
    )


def _check_look_up(place: str, action: ActionSpec, spec: ProviderSpec, reader: Reader) -> None:
    """See that what looks an effect up can be called, and changes nothing."""
    if action.check is None:
        return
    look = spec.actions.get(action.check.action)
    if look is None or not look.read_only or look.request is None:
        reader.wrong(f"{place}.action", f"{action.check.action!r} is no read of one request")
        return
    if action.repeatable:
        reader.wrong(place, "a repeat does no harm, so nothing has to be looked up")


def _check_proof(place: str, action: ActionSpec, spec: ProviderSpec, reader: Reader) -> None:
    proof = action.request.proof if action.request else ""
    if proof and any(proof not in way.proofs for way in spec.auth.ways):
        reader.wrong(place, f"{proof!r} is not in auth.proofs")


def _check_names(spec: ProviderSpec, reader: Reader) -> None:
    for name, action in spec.actions.items():
        if action.resource not in spec.resources:
            reader.wrong(f"actions.{name}.resource", f"{action.resource!r} is not in resources")
        if action.idempotency and action.read_only:
            reader.wrong(f"actions.{name}.idempotency", "a read needs no key")
        _check_look_up(f"actions.{name}.check", action, spec, reader)
        _check_proof(f"actions.{name}.request.proof", action, spec, reader)
    for number, limit in enumerate(spec.limits):
        for name in limit.actions - spec.actions.keys():
            reader.wrong(f"limits[{number}].actions", f"{name!r} is not an action")
    for name, variable in spec.auth.variables.items():
        for way in spec.auth.ways:
            told = way.token.variables if variable.source == "token" else None
            if variable.source == "account":
                told = way.account.variables if way.account else {}
            if told is not None and name not in told and variable.default is None:
                where = f"auth.variables.{name}"
                reader.wrong(where, f"nothing reads it from the {variable.source} ({way.kind})")
