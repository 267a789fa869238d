"""What starts a workflow: the kinds of trigger, and how each is read.

Trigger   WebhookTrigger | EventTrigger | ProviderTrigger | ScheduleTrigger
"""

from dataclasses import dataclass, replace
from typing import Protocol

from schemas.condition import Condition
from schemas.cron import EXPRESSION_MAX, Cron, CronError
from schemas.errors import Problem
from schemas.reading import Reader
from schemas.shaping import KINDS, Shape, read_shape
from schemas.template import Text

PATH_MAX = 512
TYPES = ("webhook", "event", "provider", "schedule")


@dataclass(frozen=True, slots=True)
class WebhookTrigger:
    """Starts on a POST to `/webhooks/{workspace}{path}`.

    Attributes:
        verify: Whether an unsigned post is refused.
        user: Template that tells whose accounts are used.
    """

    path: str
    verify: bool = False
    user: Text | None = None
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts on an event of this CloudEvents type whose payload passes the filter."""

    event_type: str
    filter: Condition | None = None
    user: Text | None = None
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class ProviderTrigger:
    """Starts on an event that a vendor's webhook told, such as GitHub's `issues.opened`.

    Attributes:
        event: The vendor's name of it; `*` at the end stands for any rest.
    """

    provider: str
    event: str
    filter: Condition | None = None
    user: Text | None = None
    shape: Shape | None = None

    def takes(self, subject: str) -> bool:
        """Say whether it is meant by `provider/event`."""
        wanted = f"{self.provider}/{self.event}"
        if wanted.endswith("*"):
            return subject.startswith(wanted[:-1])
        return subject == wanted


@dataclass(frozen=True, slots=True)
class ScheduleTrigger:
    """Starts at the times of a cron expression.

    Attributes:
        catch_up: What happens to times that nobody was there for: none, last or all.
    """

    cron: Cron
    catch_up: str = "last"
    user: Text | None = None


class TriggerCheck(Protocol):
    """What a vendor's trigger is checked against: the catalogue of providers."""

    def check_trigger(self, provider: str, event: str) -> list[Problem]:
        """Say what is wrong with waiting for this event; places are relative to the trigger."""
        ...


Trigger = WebhookTrigger | EventTrigger | ProviderTrigger | ScheduleTrigger


def normal_path(path: str) -> str:
    """Bring a webhook path into its one form: a slash in front, none at the end."""
    return "/" + path.strip().strip("/")


def read_trigger(root: Reader, check: TriggerCheck | None = None) -> Trigger | None:
    """Read a workflow's trigger; None where it cannot be made out, with problems noted."""
    if "trigger" not in root.body:
        root.note(
            "trigger",
            "is missing",
            'Write {"type": "webhook", "path": "/new-customer"}.',
            "missing_field",
        )
        return None
    reader = Reader(root.body["trigger"], root.at("trigger"), root.problems)
    kind = reader.body.get("type")
    if reader.choice("type", TYPES, "") == "webhook":
        reader.known("type", "path", "verify", "user", *KINDS)
        path = reader.text("path", required=True, longest=PATH_MAX) or ""
        if "?" in path or "#" in path:
            reader.note("path", "holds a ? or #", "Leave query and fragment out.", "bad_path")
        verify = reader.choice("verify", ("optional", "required"), "optional") == "required"
        return WebhookTrigger(
            normal_path(path), verify, reader.template("user"), read_shape(reader)
        )
    if kind == "provider":
        return _provider(reader, check)
    if kind == "schedule":
        return _schedule(reader)
    if kind != "event":
        return None
    reader.known("type", "event_type", "filter", "user", *KINDS)
    event_type = reader.text("event_type", required=True) or ""
    if event_type.startswith("nhood."):
        reader.note("event_type", "starts with nhood., which is ours", "Choose another name.")
    condition = reader.condition("filter", required=False)
    return EventTrigger(event_type, condition, reader.template("user"), read_shape(reader))


def _provider(reader: Reader, check: TriggerCheck | None) -> ProviderTrigger:
    reader.known("type", "provider", "event", "filter", "user", *KINDS)
    provider = reader.text("provider", required=True) or ""
    event = reader.text("event", required=True) or ""
    if check is not None and provider and event:
        for problem in check.check_trigger(provider, event):
            reader.problems.append(replace(problem, place=reader.at(problem.place)))
    condition = reader.condition("filter", required=False)
    return ProviderTrigger(provider, event, condition, reader.template("user"), read_shape(reader))


def _schedule(reader: Reader) -> ScheduleTrigger | None:
    reader.known("type", "cron", "timezone", "catch_up", "user")
    expression = reader.text("cron", required=True, longest=EXPRESSION_MAX)
    timezone = reader.text("timezone") or "UTC"
    catch_up = reader.choice("catch_up", ("none", "last", "all"), "last")
    user = reader.template("user")
    if expression is None:
        return None
    try:
        return ScheduleTrigger(Cron.parse(expression, timezone), catch_up, user)
    except CronError as error:
        mend = 'Write five fields, such as "0 9 * * MON-FRI".' if error.field == "cron" else ""
        reader.note(error.field, error.what, mend, f"bad_{error.field}")
        return None
