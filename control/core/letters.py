"""Dead letters: their names and how their bytes are shown; pure.

A letter is named by the place of the record that it holds: `nhood.events.v1:0:12`.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

from schemas.errors import NotFound
from schemas.events import Place
from schemas.lineage import named_place

# The class of letters that are steps which gave up: after all their attempts there was no answer to
# rely on. The letter is the step's command.
EXHAUSTED: Final = "exhausted"


def read_name(name: str) -> Place:
    """Give the place that a letter's name says.

    Raises:
        NotFound: `letter_not_found`; no letter is called so.
    """
    found = named_place(name)
    if found is None:
        raise unknown_letter(name)
    return found


def unknown_letter(name: str) -> NotFound:
    """Say that there is no such letter."""
    return NotFound(
        f"There is no dead letter {name[:80]!r}; they are named topic:partition:offset.",
        code="letter_not_found",
    )


def shown_bytes(data: bytes | None) -> Mapping[str, Any] | None:
    """Show bytes as text where they are text, else as base 64."""
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        return {"base64": base64.b64encode(data).decode(), "text": None}
    return {"base64": None, "text": text}
