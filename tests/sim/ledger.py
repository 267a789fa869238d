"""The ledger of effects in memory; `test_ledger_in_memory.py` holds it against the real one."""

from executors.runtime.ledger import Begun, Done, Entry, Fresh, Waiting
from tests.sim.dice import Dice
from tests.sim.loop import alive


class MemoryLedger:
    """One for all processes, as the database is.

    Args:
        dice: How long a transaction takes, and whether its answer is lost.
    """

    def __init__(self, dice: Dice | None = None) -> None:
        self._dice = dice
        self.effects: dict[str, bytes | str] = {}

    async def begin(self, workspace_id: str, effect_key: str, *, again: bool = False) -> Entry:
        """See `Ledger.begin`."""
        await self._pass()
        entry = self._begin(effect_key, again=again)
        if self._dice is not None and self._dice.once_in(40):
            entry = self._begin(effect_key, again=again)  # committed, the answer was lost
        await self._pass()
        return entry

    def _begin(self, effect_key: str, *, again: bool) -> Entry:
        known = self.effects.get(effect_key)
        if known is None or (known == "waiting" and again):
            self.effects[effect_key] = "started"
            return Fresh()
        if isinstance(known, bytes):
            return Done(known)
        return Waiting() if known == "waiting" else Begun()

    async def finish(self, effect_key: str, result: bytes) -> None:
        """See `Ledger.finish`."""
        await self._pass()
        if effect_key in self.effects and not isinstance(self.effects[effect_key], bytes):
            self.effects[effect_key] = result
        await self._pass()

    async def wait(self, effect_key: str) -> None:
        """See `Ledger.wait`."""
        await self._pass()
        if effect_key in self.effects and not isinstance(self.effects[effect_key], bytes):
            self.effects[effect_key] = "waiting"
        await self._pass()

    async def _pass(self) -> None:
        if self._dice is not None:
            await self._dice.pause(0.004)
        alive()
