"""What tests tell a vendor to do, step by step: the `story` of `vendors/<slug>.yaml`.

do:      the action
fault:   what the sandbox does to this call, as its faults API takes it: {status: 429}
with:    its params; "{name}" stands for what an earlier step kept, its type kept where alone
key:     the effect's key; without it each step has its own
gives:   what the output holds: objects may hold more, lists have just these items
has:     as `gives`, but lists may hold more, anywhere
keep:    {name: path.in.0.output}; `vendor_id` is the id that the outcome lifted
as:      shorthand of keep: {as: vendor_id}
fails:   {kind: rejected, code: not_found} where the outcome is no success
sent:    what the last request's body held, as `gives`
path:    what the last request's path held
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of a story."""

    do: str
    params: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    gives: Any = None
    has: Any = None
    keep: Mapping[str, str] = field(default_factory=dict)
    fails: Mapping[str, str] | None = None
    sent: Any = None
    path: str | None = None
    fault: Mapping[str, Any] | None = None


def read_step(data: Mapping[str, Any]) -> Step:
    """Read a step; a key that is not known fails."""
    rest = dict(data)
    keep = dict(rest.pop("keep", {}))
    if name := rest.pop("as", None):
        keep[name] = "vendor_id"
    return Step(do=rest.pop("do"), params=rest.pop("with", {}), keep=keep, **rest)


def filled(value: Any, kept: Mapping[str, Any]) -> Any:
    """Put what was kept in the place of "{name}"."""
    if isinstance(value, Mapping):
        return {name: filled(inner, kept) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, kept) for inner in value]
    if not isinstance(value, str):
        return value
    for name, one in kept.items():
        if value == f"{{{name}}}":
            return one
        value = value.replace(f"{{{name}}}", str(one))
    return value


def at(value: Any, path: str) -> Any:
    """Give what stands at a path such as items.0.id."""
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def missing(wanted: Any, found: Any, *, loose: bool, where: str = "") -> list[str]:
    """Name what is wanted and not found: objects may hold more, lists only where `loose`.

    None wants nothing.
    """
    if wanted is None:
        return []
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping):
            return [f"{where}: {found!r} is no object"]
        return [
            fault
            for name, inner in wanted.items()
            for fault in (
                missing(inner, found[name], loose=loose, where=f"{where}.{name}")
                if name in found
                else [f"{where}.{name}: not there; there are {sorted(map(str, found))}"]
            )
        ]
    if isinstance(wanted, list):
        return _missing_items(wanted, found, loose=loose, where=where)
    return [] if wanted == found else [f"{where}: {found!r}, wanted {wanted!r}"]


def _missing_items(wanted: list[Any], found: Any, *, loose: bool, where: str) -> list[str]:
    if not isinstance(found, list):
        return [f"{where}: {found!r} is no list"]
    if loose:
        return [
            f"{where}: none of {found!r} is {one!r}"
            for one in wanted
            if all(missing(one, item, loose=True) for item in found)
        ]
    if len(wanted) != len(found):
        return [f"{where}: {len(found)} items, wanted {len(wanted)}: {found!r}"]
    return [
        fault
        for n, (one, item) in enumerate(zip(wanted, found, strict=True))
        for fault in missing(one, item, loose=False, where=f"{where}.{n}")
    ]
