"""Gives the CEL engine without its command line.

`import cel` (PyPI common-expression-language 0.10) also imports the package's own command line and
with it typer, rich and prompt_toolkit: 0.6 s and 20 MB in every process, measured. The engine alone
is one extension module and loads in 20 ms. The module is entered under its own name, because its
native part may be set up only once in a process; a later `import cel` finds it there.
"""

import functools
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Protocol, cast

from schemas.errors import InvalidInput

_MODULE = "cel.cel"


class Program(Protocol):
    """A compiled CEL expression."""

    def execute(self, context: Mapping[str, Any]) -> Any:  # noqa: ANN401 - CEL values
        """Evaluate; raises KeyError, TypeError or ValueError where CEL has an error value."""

    def variables(self) -> list[str]:
        """Name the variables that the expression reads."""


class Engine(Protocol):
    """The part of the extension module that we use."""

    def compile(self, expression: str) -> Program:
        """Compile; raises ValueError with the place of a syntax error."""


@functools.cache
def _engine() -> Engine:
    if _MODULE in sys.modules:
        return cast("Engine", sys.modules[_MODULE])
    package = importlib.util.find_spec("cel")
    folders = package.submodule_search_locations if package else None
    spec = importlib.machinery.PathFinder.find_spec(_MODULE, folders)
    if spec is None or spec.loader is None:
        raise ImportError("the package common-expression-language is not installed", name="cel")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return cast("Engine", module)


def compile_cel(text: str) -> Program:
    """Compile a CEL expression, to be done once.

    Raises:
        InvalidInput: If the text is not a CEL expression.
    """
    try:
        return _engine().compile(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not a CEL expression: {error}", code="bad_cel") from None
