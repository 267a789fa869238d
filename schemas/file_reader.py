"""Compiles the templates and conditions of a provider file and gathers what is wrong with them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from schemas.errors import InvalidInput, Problem
from schemas.expression import Condition, Path, Template, Tree

ANSWER: Final = frozenset({"body", "headers", "status"})
_BROKEN: Final = Template("")
_NEVER: Final = "false"


class Reader:
    """Gathers problems while a file is compiled; `place` is a path such as `actions.x.request`.

    Attributes:
        variables: Declared variables of the account, so that `connection.x` can be checked.
        declared: Declared params of the action being read, in their order.
        params: The same as a set.
        credentials: Fields that the customer enters in the way to connect that is being read.
    """

    def __init__(self, file: str, variables: Iterable[str]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.variables = frozenset(variables)
        self.declared: tuple[str, ...] = ()
        self.params: frozenset[str] = frozenset()
        self.credentials: frozenset[str] = frozenset()

    def declare(self, params: Iterable[str]) -> None:
        """Say which params the references that follow may go to."""
        self.declared = tuple(params)
        self.params = frozenset(self.declared)

    def wrong(self, place: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(f"{self.file}: {place}", message, code="bad_provider"))

    def template(self, text: str, place: str, roots: frozenset[str]) -> Template:
        """Compile a text; a wrong one is noted and read as empty."""
        try:
            template = Template(text)
        except InvalidInput as error:
            self.wrong(place, error.public)
            return _BROKEN
        self._check_paths(template.paths, place, roots)
        return template

    def templates(
        self, values: Mapping[str, str], place: str, roots: frozenset[str]
    ) -> dict[str, Template]:
        """Compile a mapping of texts."""
        return {k: self.template(v, f"{place}.{k}", roots) for k, v in values.items()}

    def tree(self, value: object, place: str, roots: frozenset[str]) -> Tree:
        """Compile a JSON-like value."""
        try:
            tree = Tree(value)
        except InvalidInput as error:
            self.wrong(place, error.public)
            return Tree(None)
        self._check_paths(tree.paths, place, roots)
        return tree

    def condition(self, text: str, place: str, roots: frozenset[str] = ANSWER) -> Condition:
        """Compile a CEL condition."""
        try:
            condition = Condition(text)
        except InvalidInput as error:
            self.wrong(place, error.public)
            return Condition(_NEVER)
        return condition

    def optional_condition(
        self, values: Mapping[str, Any], key: str, place: str
    ) -> Condition | None:
        """Compile a CEL condition that may be left out."""
        return self.condition(values[key], f"{place}.{key}") if key in values else None

    def optional_template(
        self, values: Mapping[str, Any], key: str, place: str, roots: frozenset[str]
    ) -> Template | None:
        """Compile a text that may be left out."""
        return self.template(values[key], f"{place}.{key}", roots) if key in values else None

    def _check_paths(self, paths: Iterable[Path], place: str, roots: frozenset[str]) -> None:
        for path in paths:
            if path.root not in roots:
                known = ", ".join(sorted(roots))
                self.wrong(place, f"{path.source} goes to none of {known}")
            elif path.root == "connection" and (
                not path.steps or path.steps[0] not in self.variables
            ):
                self.wrong(place, f"{path.source} is not declared in auth.variables")
            elif path.root == "credentials" and (
                not path.steps or path.steps[0] not in self.credentials
            ):
                self.wrong(place, f"{path.source} is not declared in credentials")
            elif path.root == "params" and (not path.steps or path.steps[0] not in self.params):
                self.wrong(place, f"{path.source} is not declared in the action's params")
