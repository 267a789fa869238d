"""What the tests know of one vendor beside its provider file: `vendors/<slug>.yaml`.

variables:   {subdomain: acme}   a sample of each account variable without a default
pages:       by action or "*": what an answer says where a list goes on (`more`, with {n} for
             the page's number; `headers` where headers say it) and where it is over (`end`);
             `empty: true` where nothing says so but a page without items
shortened:   true where the examples leave out fields that the description requires of answers
departures:  where we depart from the vendor's description, each with the reason; each must
             be needed (shell patterns in `action` and `place`)
credentials: {field: value}      what is entered where no consent leads to a connection; a field
             that is not told gets `sandbox_token`
read, write: names of a harmless action that needs a token, and of one that makes something; their
             examples are run through the whole product
handshakes:  {request: {method, query, headers, body}, answer: {status, body, headers}, secret},
             as the vendor documents them; an answer's body as text, or as JSON where it is that
story:       what the sandbox's vendor is told, step by step; see tests/contract/story.py
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from schemas.provider import ProviderSpec
from tests.contract.story import Step, read_step

VENDORS = Path(__file__).parent / "vendors"


@dataclass(frozen=True)
class Departure:
    """Faults of these actions in these places are not ours (shell patterns)."""

    slug: str
    action: str
    place: str
    reason: str

    def covers(self, slug: str, action: str, place: str) -> bool:
        """Say whether a fault is this departure."""
        return (
            slug == self.slug
            and fnmatchcase(action, self.action)
            and fnmatchcase(place, self.place)
        )


@dataclass(frozen=True)
class Ends:
    """What a list's answer says where it goes on, and where it is over."""

    more: Mapping[str, Any]
    end: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    empty: bool = False


@dataclass(frozen=True)
class Vendor:
    """One vendor's file, read."""

    variables: Mapping[str, str]
    pages: Mapping[str, Ends]
    departures: tuple[Departure, ...]
    shortened: bool = False
    credentials: Mapping[str, str] = field(default_factory=dict)
    read: str | None = None
    write: str | None = None
    story: tuple[Step, ...] = ()
    handshakes: tuple[Mapping[str, Any], ...] = ()

    def ends(self, action: str) -> Ends:
        """Give what this action's answers say of further pages."""
        found = self.pages.get(action, self.pages.get("*"))
        assert found is not None, f"tell in vendors/*.yaml how {action} says that it goes on"
        return found


def read_vendor(slug: str) -> Vendor:
    """Read a vendor's file; a key that is not known fails."""
    data = yaml.safe_load((VENDORS / f"{slug}.yaml").read_text()) or {}
    departures = tuple(Departure(slug, **one) for one in data.pop("departures", ()))
    pages = {name: Ends(**ends) for name, ends in data.pop("pages", {}).items()}
    story = tuple(read_step(step) for step in data.pop("story", ()))
    handshakes = tuple(data.pop("handshakes", ()))
    variables = data.pop("variables", {})
    return Vendor(variables, pages, departures, story=story, handshakes=handshakes, **data)


def told_by_customer(spec: ProviderSpec) -> dict[str, str]:
    """Give a sample of what a customer has to tell before the consent."""
    samples = read_vendor(spec.slug).variables
    return {
        name: samples[name]
        for name, variable in spec.auth.variables.items()
        if variable.source == "customer" and variable.default is None
    }
