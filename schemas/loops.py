"""`for_each`: one action for every item of a list, in order or side by side.

The fields of an action step, and `items`. Its result is the list of what each item gave.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.reading import Reader
from schemas.template import Reference, TemplateError, compile_value, references

if TYPE_CHECKING:
    from schemas.workflow import ActionStep

ITEMS_MAX = 1_000  # what is remembered of an execution is held in a router's memory
PARALLEL_MAX = 50  # commands of one loop at a time; each of them carries the execution's payload
LOOP_FIELDS = ("items", "max_parallel", "on_item_error")

STOP, CONTINUE, IGNORE = "stop", "continue", "ignore"


@dataclass(frozen=True, slots=True)
class ForEachStep:
    """Calls an action for every item.

    Attributes:
        body: The action; its templates may read `item` and `loop.index`.
        items: Compiled; gives the list.
        max_parallel: Items under way at a time; 1: one after the other.
        on_item_error: stop: no further item is begun, the step fails; continue: every item is
            tried, the step fails where one did; ignore: every item is tried, the step succeeds.
    """

    id: str
    body: "ActionStep"
    items: object
    max_parallel: int = 1
    on_item_error: str = STOP

    @property
    def depends_on(self) -> tuple[str, ...] | None:
        """Steps that it follows."""
        return self.body.depends_on

    @property
    def on_error(self) -> str:
        """What a failure of the whole step stops."""
        return self.body.on_error

    @property
    def rescue(self) -> tuple[str, ...]:
        """Steps that take over when the whole step failed."""
        return self.body.rescue

    @property
    def references(self) -> Iterator[Reference]:
        """Every template of the step."""
        yield from references(self.items)
        yield from self.body.references


def unit(step_id: str, loop_index: int) -> str:
    """Name one item of a loop, as the router remembers it."""
    return f"{step_id}#{loop_index}"


def read_for_each(reader: Reader, body: "ActionStep") -> ForEachStep:
    """Read what makes an action step a loop."""
    return ForEachStep(
        body.id,
        body,
        _items(reader),
        reader.whole("max_parallel", 1, 1, PARALLEL_MAX),
        reader.choice("on_item_error", (STOP, CONTINUE, IGNORE), STOP),
    )


def _items(reader: Reader) -> object:
    value = reader.body.get("items")
    hint = 'Write "items": "{{order.lines}}", or a list.'
    if value is None:
        reader.note("items", "is missing", hint, "missing_field")
    elif isinstance(value, list):
        if len(value) > ITEMS_MAX:
            reader.note("items", f"has more than {ITEMS_MAX} items", "", "too_many")
        return _compiled(reader, value)
    elif isinstance(value, str):
        text = _compiled(reader, value)
        if not isinstance(text, str) and getattr(text, "whole", None) is not None:
            return text
        reader.note("items", "must be one template that gives a list", hint, "wrong_type")
    else:
        reader.note("items", "must be a list or a template that gives one", hint, "wrong_type")
    return []


def _compiled(reader: Reader, value: object) -> object:
    try:
        return compile_value(value)
    except TemplateError as error:
        reader.note("items", str(error), "See docs/workflows.md, templates.", error.code)
        return []
