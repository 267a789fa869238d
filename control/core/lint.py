"""Checks a workflow's actions against the catalogue, so that wrong params fail when it is saved."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from schemas.errors import NotFound, Problem
from schemas.polling import polls_of
from schemas.provider import Catalogue, ProviderSpec, nearest
from schemas.triggers import triggers_of


class CatalogueActions:
    """The catalogue as `schemas.workflow` asks it (its port `Actions`).

    Args:
        catalogue: Of all providers.
        mode: In which the workflow runs; of a provider that was shut down only tests can be made.
    """

    def __init__(self, catalogue: Catalogue, mode: str = "live") -> None:
        self._catalogue = catalogue
        self._mode = mode

    def in_mode(self, mode: str) -> "CatalogueActions":
        """Give the same for workflows of another mode."""
        return CatalogueActions(self._catalogue, mode)

    def check_action(self, provider: str, action: str, params: Mapping[str, Any]) -> list[Problem]:
        """Say what is wrong with calling this action so; places are relative to the step."""
        try:
            spec = self._catalogue.get(provider)
        except NotFound as error:
            return [_unknown("provider", error, "GET /api/v1/integrations lists them.")]
        if not spec.is_open(self._mode):
            return [_shut_down(spec)]
        try:
            found = spec.action(action)
        except NotFound as error:
            mend = f"GET /api/v1/integrations/{provider} lists its actions."
            return [_unknown("action", error, mend)]
        problems = found.check_params(params, templated=True)
        return [replace(problem, place=_inside(problem.place)) for problem in problems]

    def check_look_up(self, provider: str, action: str) -> list[Problem]:
        """Say what is wrong with `on_unknown: check`; nothing where `check_action` says enough."""
        try:
            found = self._catalogue.action(provider, action)
        except NotFound:
            return []
        if found.check is not None or found.repeatable:
            return []
        able = ", ".join(
            f"{spec.slug}.{each.id}"
            for spec in self._catalogue
            for each in spec.actions.values()
            if each.check is not None
        )
        message = f"{provider} has no look-up that would find what {action} did"
        mend = f"Use retry or fail. Looked up can be: {able}."
        return [Problem("on_unknown", message, mend, "no_look_up")]

    def check_trigger(self, provider: str, event: str) -> list[Problem]:
        """Say what is wrong with waiting for this event; places are relative to the trigger."""
        try:
            spec = self._catalogue.get(provider)
        except NotFound as error:
            return [_unknown("provider", error, "GET /api/v1/integrations lists them.")]
        if not spec.is_open(self._mode):
            return [_shut_down(spec)]
        polled = polls_of(spec)
        if any(fnmatchcase(name, event) for name in polled):
            return []
        found = triggers_of(spec)
        if found is not None and found.receivable:
            wrong = found.check_event(event)
            return [wrong] if wrong is not None else []
        if polled:
            hint = nearest(event, polled) or f"; it has: {', '.join(polled)}"
            return [Problem("event", f"{event!r} is not looked for{hint}", "", "bad_event")]
        mend = "Start the workflow by a webhook, an event or a schedule."
        return [Problem("provider", f"{spec.name} sends no webhooks", mend, "no_triggers")]


def _shut_down(spec: ProviderSpec) -> Problem:
    message = f"{spec.name} was shut down and can be called no more"
    return Problem("provider", message, "A test key still reaches it.", "provider_shut_down")


def _unknown(place: str, error: NotFound, mend: str) -> Problem:
    text = error.public[:1].lower() + error.public[1:]
    return Problem(place, text.rstrip("."), mend, error.code)


def _inside(place: str) -> str:
    if not place:
        return "config"
    return f"config{place}" if place.startswith("[") else f"config.{place}"
