"""The table of all providers, `docs/integrations/README.md`; pure."""

from collections.abc import Iterable, Iterator

from nhood.providers.page import CATEGORIES, KINDS
from schemas.polling import polls_of
from schemas.provider import ProviderSpec
from schemas.tiers import Standing
from schemas.triggers import triggers_of

_HEAD = """# Integrations

Written by `nhood providers docs` from `executors/providers/`: nothing here is kept by hand.
Tiers are computed: **bronze** renders and is read; **silver** has the vendor's documented
failures, an error map and limits; **gold** is held against the vendor's own description, and
its webhooks against a published signature or a sample.

"""
_COLUMNS = ("provider", "tier", "actions", "connect", "refresh", "limits", "errors (held against)",
            "triggers", "signature vectors", "contract")  # fmt: skip


def matrix(found: Iterable[tuple[ProviderSpec, Standing]]) -> str:
    """Give the page's text, Markdown."""
    ordered = sorted(found, key=lambda one: (list(CATEGORIES).index(one[0].category), one[0].slug))
    return _HEAD + "\n".join(_rows(ordered)) + "\n"


def _rows(found: Iterable[tuple[ProviderSpec, Standing]]) -> Iterator[str]:
    yield _row(_COLUMNS)
    yield _row(("---",) * len(_COLUMNS))
    for spec, standing in found:
        triggers = triggers_of(spec)
        told = [f"{len(triggers.events)} events"] if triggers and triggers.receivable else []
        polls = polls_of(spec)
        told += [f"{len(polls)} looked for"] if polls else []
        contract = "own description" if standing.described else "documentation"
        yield _row(
            (
                f"[{spec.name}]({spec.slug}.md){' (shut down)' * (spec.status == 'shut_down')}",
                standing.tier,
                len(spec.actions),
                ", ".join(dict.fromkeys(KINDS[way.kind] for way in spec.auth.ways)),
                spec.auth.refresh if spec.auth.kind == "oauth2" else "none",
                len(spec.limits),
                f"{len(spec.errors)} ({standing.failures})",
                ", ".join(told) or "none",
                standing.vectors,
                f"{contract} ({standing.described} of {len(spec.actions)})",
            )
        )


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
