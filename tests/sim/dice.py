"""Chance from one seed."""

import asyncio
import random
from collections.abc import Sequence
from typing import TypeVar

Choice = TypeVar("Choice")


class Dice:
    """Everything that is left to chance in one world."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def once_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0

    def below(self, number: int) -> int:
        return self._random.randrange(number)

    def one_of(self, choices: Sequence[Choice]) -> Choice:
        return self._random.choice(choices)

    def seconds(self, longest: float) -> float:
        return self._random.random() * longest

    def random(self) -> float:
        return self._random.random()

    async def pause(self, longest: float) -> None:
        """Let up to so many seconds pass."""
        await asyncio.sleep(self.seconds(longest))
