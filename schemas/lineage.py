"""What a record that was sent again tells of the one that it repeats.

A dead letter is named by the place of the record that it holds, `nhood.events.v1:0:12`; sent again,
the record carries that name as a header. Whoever derives anything from a record's place takes it
from there, so that what is sent again, however often, is the same thing as before.
"""

import re
from collections.abc import Mapping
from typing import Final

from schemas.events import Place

REDRIVEN_HEADER: Final = "nhood-redriven"
_NAME: Final = re.compile(r"(nhood\.[a-z0-9.-]{1,200}):(\d{1,9}):(\d{1,18})", re.ASCII)


def place_name(place: Place) -> str:
    """Write a place as a name: `nhood.events.v1:0:12`."""
    return f"{place.topic}:{place.partition}:{place.offset}"


def named_place(name: str) -> Place | None:
    """Read such a name; None where it is none."""
    found = _NAME.fullmatch(name)
    return None if found is None else Place(found[1], int(found[2]), int(found[3]))


def origin(headers: Mapping[str, bytes], place: Place) -> Place:
    """Say where a record stood first: its own place, unless it was sent again."""
    name = headers.get(REDRIVEN_HEADER)
    if name is None:
        return place
    found = named_place(name.decode(errors="replace"))
    # Only its own topic: the name comes from a header, which any writer of the topic may set.
    return found if found is not None and found.topic == place.topic else place
