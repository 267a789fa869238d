"""Validates requests and answers against a vendor's own GraphQL schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLResolveInfo,
    OperationDefinitionNode,
    build_schema,
    execute_sync,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values

from executors.core.request import Request


@dataclass(frozen=True)
class Operation:
    """One operation of a description."""

    method: str
    path: str
    data: dict[str, Any]
    parameters: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Fault:
    """One thing that the description would not allow: where, and what."""

    place: str
    message: str


class GraphDescription:
    """One vendor's schema; an operation is a field of its query or mutation type."""

    def __init__(self, source: str) -> None:
        self.schema = build_schema(source)
        self.operations = tuple(
            Operation("POST", "", {"operationId": name}, ())
            for root in (self.schema.query_type, self.schema.mutation_type)
            if root is not None
            for name in root.fields
        )

    def find(self, request: Request) -> Operation | None:
        """Find the operation that a request is for: the field that its document asks first."""
        document = _document(request)
        field = document.selection_set.selections[0] if document is not None else None
        if not isinstance(field, FieldNode):
            return None
        named = [one for one in self.operations if one.data["operationId"] == field.name.value]
        return Operation("POST", "", named[0].data, ()) if named else None

    def request_faults(self, _operation: Operation, request: Request) -> list[Fault]:
        """Tell what of a request the schema does not allow."""
        return list(self._faults(request))

    def _faults(self, request: Request) -> Iterator[Fault]:
        document = parse(request.json["query"])
        for error in validate(self.schema, document):
            yield Fault("body.query", error.message)
        made = _document(request)
        assert made is not None
        given = request.json["variables"]
        read = get_variable_values(self.schema, made.variable_definitions or (), given)
        for error in read if isinstance(read, list) else ():
            yield Fault("body.variables", error.message)
        named = {one.variable.name.value for one in made.variable_definitions or ()}
        for name in given.keys() - named:
            yield Fault(f"body.variables.{name}", "is not described")

    def answer_faults(
        self, _operation: Operation, status: int, body: Any, *, shortened: bool = False
    ) -> list[Fault]:
        """Tell what of an answer the schema does not allow; the request tells what it should hold.

        Nothing is said of an answer alone: `example_faults` judges it with its request.
        """
        del shortened
        return [] if status == 200 and "data" in body else [Fault("status", f"{status}")]

    def example_faults(self, request: Request, body: Any) -> list[Fault]:
        """Tell what of an answer does not fit what its request asks for."""
        given = request.json["variables"]
        found = execute_sync(
            self.schema,
            parse(request.json["query"]),
            root_value=body["data"],
            variable_values=given,
            field_resolver=_by_alias,
        )
        errors: list[GraphQLError] = found.errors or []
        faults = [Fault("answer", f"{error.path}: {error.message}") for error in errors]
        if not faults and found.data != body["data"]:
            faults.append(Fault("answer", f"holds {body['data']}, but is asked for {found.data}"))
        return faults


def _by_alias(source: Any, info: GraphQLResolveInfo, **_arguments: Any) -> Any:
    if info.path.key not in source:
        raise GraphQLError(f"{info.path.key} is not there")
    return source[info.path.key]


def _document(request: Request) -> OperationDefinitionNode | None:
    if not isinstance(request.json, dict) or "query" not in request.json:
        return None
    node = parse(request.json["query"]).definitions[0]
    return node if isinstance(node, OperationDefinitionNode) else None
