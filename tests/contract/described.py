"""Validates requests and answers against a vendor's own description (OpenAPI 3.0 or Swagger 2)."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator, OAS31Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from executors.core.request import Request
from nhood.sandbox.wire_in import nested
from schemas.files import Upload
from schemas.transforms import as_text
from tests.contract.described_graphql import Fault, GraphDescription, Operation

SPECS = Path(__file__).parents[1] / "specs"
_BASE = "urn:description"
_FORM = "application/x-www-form-urlencoded"


class Description:
    """One vendor's description."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document = _with_nulls(document)
        self.swagger = "swagger" in document
        self.registry = Registry().with_resource(_BASE, DRAFT4.create_resource(document))
        loose = DRAFT4.create_resource(_loosened(document))
        self.loose_registry = Registry().with_resource(_BASE, loose)
        self.operations = tuple(self._operations())

    def _operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method, data in item.items():
                if method in ("get", "post", "put", "patch", "delete"):
                    listed = [*item.get("parameters", ()), *data.get("parameters", ())]
                    parameters = tuple(self._resolve(entry) for entry in listed)
                    yield Operation(method.upper(), path, data, parameters)

    def _resolve(self, entry: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in entry:
            node: Any = self.document
            for step in entry["$ref"].removeprefix("#/").split("/"):
                node = node[step.replace("~1", "/").replace("~0", "~")]
            entry = node
        return entry

    def find(self, request: Request) -> Operation | None:
        """Find the operation that a request is for, the most literal path first."""
        path = urlsplit(request.url).path
        for operation in sorted(self.operations, key=lambda o: o.path.count("{")):
            pattern = re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(operation.path))
            if operation.method == request.method and re.search(f"{pattern}$", path):
                return operation
        return None

    def request_faults(self, operation: Operation, request: Request) -> list[Fault]:
        """Tell what of a request the description does not allow."""
        faults = list(self._parameter_faults(operation, request))
        if self.swagger:
            return [*faults, *self._form_faults(operation, request)]
        body = self._resolve(operation.data.get("requestBody", {}))
        content = body.get("content", {})
        if request.upload is not None:
            return [*faults, *self._upload_faults(content, request.upload)]
        if request.form is not None or _FORM in content:
            return [*faults, *self._nested_form_faults(content.get(_FORM), request)]
        schema = content.get("application/json", {}).get("schema")
        if request.json is None:
            return [*faults, Fault("body", "is missing")] if body.get("required") else faults
        if schema is not None:
            faults += self._schema_faults(schema, request.json, "body", OAS30WriteValidator)
            faults += self._unknown_names(schema, request.json, "body")
        else:
            # Where the body is not described (Zendesk's organizations) what comes back has the
            # same names.
            answers = operation.data["responses"].values()
            known = (
                a.get("content", {}).get("application/json", {}).get("schema") for a in answers
            )
            faults += self._unknown_names(next(known) or {}, request.json, "body")
        return faults

    def _upload_faults(self, content: dict[str, Any], upload: Upload) -> list[Fault]:
        """Check the kind of a body that carries files; its content is no affair of anybody's."""
        kind = upload.content_type.partition(";")[0]
        wide = {"application/octet-stream", "*/*"} if not kind.startswith("multipart/") else set()
        known = {name.partition(";")[0] for name in content}
        if known & {kind, *wide}:
            return []
        return [Fault("body", f"must not be {kind}, but one of {sorted(known)}")]

    def _nested_form_faults(self, content: Any, request: Request) -> list[Fault]:
        """Check a form whose values nest in brackets, read back as its schema's types."""
        if content is None:
            return [Fault("body", "must not be a form")]
        schema = content["schema"]
        value = self._read_as(schema, nested(request.form or ()))
        faults = self._schema_faults(schema, value, "body", OAS30WriteValidator)
        return [*faults, *self._unknown_names(schema, value, "body")]

    def _read_as(self, schema: dict[str, Any], value: Any) -> Any:
        schema = self._resolve(schema)
        choices = [self._resolve(one) for one in (schema, *schema.get("anyOf", ()))]
        if isinstance(value, dict):
            listed, _ = self._properties(schema)
            others = [
                one["additionalProperties"] for one in choices if "additionalProperties" in one
            ]
            other = next((one for one in others if isinstance(one, dict)), {})
            return {n: self._read_as(listed.get(n, other), item) for n, item in value.items()}
        if isinstance(value, list):
            items = next((one["items"] for one in choices if "items" in one), {})
            return [self._read_as(items, item) for item in value]
        for kind in {one.get("type") for one in choices} & {"boolean", "integer", "number"}:
            found = _typed(value, kind)
            if found is not None:
                return found
        return value

    def answer_faults(
        self, operation: Operation, status: int, body: Any, *, shortened: bool = False
    ) -> list[Fault]:
        """Tell what of an answer the description does not allow; shortened it may lack fields."""
        answers = operation.data["responses"]
        told = next((n for n in (str(status), f"{status // 100}XX") if n in answers), None)
        if told is None:
            return [Fault("status", f"{status} is not one of {', '.join(answers)}")]
        answer = self._resolve(answers[told])
        schema = answer.get("schema")
        if not self.swagger:
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
        if schema is None or body is None:
            return []
        if shortened:
            schema = _loosened(schema)
            return self._schema_faults(
                schema, body, "answer", OAS30ReadValidator, self.loose_registry
            )
        return self._schema_faults(schema, body, "answer", OAS30ReadValidator)

    def _parameter_faults(self, operation: Operation, request: Request) -> Iterator[Fault]:
        declared = {p["name"]: p for p in operation.parameters if p["in"] == "query"}
        deep = {name for name, one in declared.items() if one.get("style") == "deepObject"}
        given: dict[str, list[str]] = {}
        for name, value in request.query:
            if name.partition("[")[0] not in deep or name in declared:
                given.setdefault(name, []).append(value)
        for name, value in nested(request.query).items():
            if name in deep and name not in given:
                schema = declared[name]["schema"]
                value = self._read_as(schema, value)
                yield from self._schema_faults(schema, value, f"query.{name}", OAS30WriteValidator)
                yield from self._unknown_names(schema, value, f"query.{name}")
        for name, values in given.items():
            if name not in declared:
                yield Fault(f"query.{name}", "is not described")
            else:
                yield from self._text_faults(declared[name], values, f"query.{name}")
        for name, parameter in declared.items():
            if parameter.get("required") and name not in given:
                yield Fault(f"query.{name}", "is missing")
        for name, value in self._path_values(operation, request):
            parameter = next(p for p in operation.parameters if p["name"] == name)
            yield from self._text_faults(parameter, [value], f"path.{name}")

    def _path_values(self, operation: Operation, request: Request) -> list[tuple[str, str]]:
        names = re.findall(r"\{([^}]+)\}", operation.path)
        pattern = re.sub(r"\\\{[^}]+\\\}", "([^/]+)", re.escape(operation.path))
        found = re.search(f"{pattern}$", urlsplit(request.url).path)
        assert found is not None
        return [(name, unquote(text)) for name, text in zip(names, found.groups(), strict=True)]

    def _text_faults(
        self, parameter: dict[str, Any], values: list[str], place: str
    ) -> Iterator[Fault]:
        """Check text values by a parameter's schema, read back as its type."""
        schema = self._resolve(parameter.get("schema", parameter))
        choices = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
        if choices:
            tried = [list(self._text_faults({"schema": c}, values, place)) for c in choices]
            yield from min(tried, key=len)
            return
        kind = schema.get("type")
        read = [_typed(value, schema.get("items", schema).get("type")) for value in values]
        if any(value is None for value in read):
            yield Fault(place, f"{values} cannot be read as {kind}")
            return
        if not self.swagger:
            value = read if kind == "array" else read[0]
            yield from self._schema_faults(schema, value, place, OAS30WriteValidator)

    def _form_faults(self, operation: Operation, request: Request) -> Iterator[Fault]:
        """Check a body by form fields; arrays and objects of a JSON body count as JSON text."""
        whole = next((p for p in operation.parameters if p["in"] == "body"), None)
        if whole is not None:
            value = request.json or {}
            yield from self._schema_faults(whole["schema"], value, "body", OAS30WriteValidator)
            yield from self._unknown_names(whole["schema"], value, "body")
            return
        declared = {p["name"]: p for p in operation.parameters if p["in"] == "formData"}
        body = request.json if request.json is not None else dict(request.form or ())
        for name, value in body.items():
            if name not in declared:
                yield Fault(f"body.{name}", "is not described")
            else:
                yield from self._text_faults(declared[name], [as_text(value)], f"body.{name}")
        for name, parameter in declared.items():
            if parameter.get("required") and name not in body:
                yield Fault(f"body.{name}", "is missing")
        sent = {header.lower() for header in request.headers}
        for parameter in operation.parameters:
            name, needed = parameter["name"], parameter.get("required", False)
            if needed and parameter["in"] == "header" and name.lower() not in sent:
                yield Fault(f"header.{name}", "is missing")

    def _unknown_names(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[Fault]:
        """Tell names that an object lists no property for, though the schema leaves it open.

        An object that says itself that it takes others (additionalProperties) may have any.
        """
        if isinstance(value, list):
            items = self._resolve(schema).get("items", {})
            for number, item in enumerate(value):
                yield from self._unknown_names(items, item, f"{place}[{number}]")
        if not isinstance(value, dict):
            return
        listed, takes_any = self._properties(schema)
        for name, item in value.items():
            if name in listed:
                yield from self._unknown_names(listed[name], item, f"{place}.{name}")
            elif listed and not takes_any:
                yield Fault(f"{place}.{name}", "is not described")

    def _properties(self, schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        schema = self._resolve(schema)
        listed = dict(schema.get("properties", {}))
        takes_any = bool(schema.get("additionalProperties", False))
        for part in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
            inner, inner_any = self._properties(part)
            listed.update(inner)
            takes_any = takes_any or inner_any
        return listed, takes_any

    def _schema_faults(
        self, schema: Any, value: Any, place: str, kind: Any, registry: Any = None
    ) -> list[Fault]:
        holder = {"$id": "urn:holder", "allOf": [_absolute(schema)]}
        kind = OAS31Validator if self.document.get("openapi", "").startswith("3.1") else kind
        validator = kind(holder, registry=registry or self.registry)
        return [
            Fault(_place(place, error.absolute_path), error.message)
            for error in validator.iter_errors(value)
        ]


def _absolute(schema: Any) -> Any:
    """Point references at the description as a whole."""
    if isinstance(schema, dict):
        return {
            k: _BASE + v if k == "$ref" and isinstance(v, str) else _absolute(v)
            for k, v in schema.items()
        }
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema


def _with_nulls(schema: Any) -> Any:
    """Give a schema whose nullable alternatives have null among them, as vendors mean it."""
    if isinstance(schema, dict):
        found = {key: _with_nulls(value) for key, value in schema.items()}
        if found.get("nullable") is True and isinstance(found.get("anyOf"), list):
            found["anyOf"] = [*found["anyOf"], {"enum": [None], "nullable": True}]
        return found
    return [_with_nulls(item) for item in schema] if isinstance(schema, list) else schema


def _loosened(schema: Any) -> Any:
    """Give a schema that requires nothing; of alternatives several may then fit."""
    if isinstance(schema, dict):
        return {
            "anyOf" if key == "oneOf" else key: _loosened(value)
            for key, value in schema.items()
            if not (key == "required" and isinstance(value, list))
        }
    return [_loosened(item) for item in schema] if isinstance(schema, list) else schema


def _typed(text: str, kind: str | None) -> Any:
    if kind == "boolean":
        return {"true": True, "false": False}.get(text)
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            return None
    return text


def _place(start: str, path: Any) -> str:
    return start + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


@cache
def description_of(slug: str) -> Description | GraphDescription | None:
    """Load a vendor's description, None where the vendor publishes none."""
    path = SPECS / f"{slug}.graphql"
    if path.is_file():
        return GraphDescription(path.read_text())
    path = SPECS / f"{slug}.json"
    return Description(orjson.loads(path.read_bytes())) if path.is_file() else None
