"""Reads single records of the log that lie near each other, a few at a time."""

from collections import OrderedDict
from typing import Final

from schemas.errors import DependencyDown
from schemas.events import Place
from wire.bus import Log, Stored

# A read opens a consumer; what follows is mostly asked for next. At 1 MB a record that is 16 MB.
AHEAD: Final = 16
KAFKA_DOWN: Final = "kafka_down"


class Places:
    """Gives what stands at a place; keeps the neighbours that were read along.

    Args:
        log: Where from.
        ahead: How many neighbours are read along.
    """

    def __init__(self, log: Log, ahead: int = AHEAD) -> None:
        self._log = log
        self._ahead = ahead
        self._kept: OrderedDict[Place, Stored] = OrderedDict()

    async def get(self, place: Place) -> Stored | None:
        """Give the record at a place; None where retention or compaction has taken it.

        Raises:
            DependencyDown: Kafka is away.
        """
        if place not in self._kept:
            await self._read(place)
        return self._kept.pop(place, None)

    async def _read(self, place: Place) -> None:
        try:
            found = await self._log.read(place.topic, place.partition, place.offset, self._ahead)
        except DependencyDown as error:
            if error.code == KAFKA_DOWN:
                raise
            return  # the log begins behind this place
        for stored in found:
            self._kept[stored.place] = stored
        while len(self._kept) > 2 * self._ahead:
            self._kept.popitem(last=False)
