"""How far a provider's integration is shown to be right; computed from its folder, never declared.

bronze  every action renders from its example, and the answer is read
silver  besides: failures as the vendor documents them, an error map, known limits
gold    besides: held against the vendor's own description, and its webhooks against a
        published signature or a sample of what it sends (where it sends any)
"""

from dataclasses import dataclass
from typing import Final, Literal

from schemas.provider import ProviderSpec

Tier = Literal["bronze", "silver", "gold"]

FAILURES_MIN: Final = 3
# Of an API's actions; what a hook does, or the description lacks, has no operation to name.
DESCRIBED_MIN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What a provider's folder shows.

    Attributes:
        failures: The vendor's failures, as documented, that the error map is held against.
        described: Actions that name their operation in the vendor's description.
        vectors: Published signatures that are checked.
        sampled: The sandbox knows what an event of the vendor looks like.
        lacking: What the next tier wants, in words; empty at gold.
    """

    tier: Tier
    failures: int
    described: int
    vectors: int
    sampled: bool
    lacking: tuple[str, ...]


def standing(spec: ProviderSpec) -> Standing:
    """Say where a provider stands; looks into its folder."""
    failures = len(list((spec.folder / "fixtures").glob("*.json")))
    described = sum(_is_described(spec, name) for name in spec.actions)
    triggers = spec.triggers or {}
    vectors = len(triggers.get("vectors") or ())
    sampled = _is_sampled(spec)
    silver = _lacking_for_silver(spec, failures)
    gold = _lacking_for_gold(spec, described, vectors, sampled=sampled)
    tier: Tier = "bronze" if silver else "silver" if gold else "gold"
    return Standing(tier, failures, described, vectors, sampled, tuple(silver or gold))


def _is_described(spec: ProviderSpec, name: str) -> bool:
    return spec.actions[name].operation_id is not None or spec.api.graphql is not None


def _is_sampled(spec: ProviderSpec) -> bool:
    """Look for the section without reading all of the file: the API asks at every start."""
    sheet = spec.folder / "sandbox.yaml"
    return sheet.is_file() and "\nevents:" in sheet.read_text()


def _lacking_for_silver(spec: ProviderSpec, failures: int) -> list[str]:
    lacking = []
    if failures < FAILURES_MIN:
        lacking.append(f"{FAILURES_MIN} documented failures in fixtures/ (there are {failures})")
    if not spec.errors:
        lacking.append("an error map (`errors`)")
    if not spec.limits:
        lacking.append("the vendor's rate limits (`limits`)")
    return lacking


def _lacking_for_gold(
    spec: ProviderSpec, described: int, vectors: int, *, sampled: bool
) -> list[str]:
    lacking = []
    if described < DESCRIBED_MIN * len(spec.actions):
        lacking.append("actions held against the vendor's own description (`operation_id`)")
    receives = (spec.triggers or {}).get("event_type") is not None
    if receives and not vectors and not sampled:
        lacking.append("a published signature (`vectors`) or a sample of an event (sandbox.yaml)")
    return lacking
