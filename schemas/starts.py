"""What starts a workflow: the kinds of trigger, and how each is read.

Trigger   WebhookTrigger | EventTrigger
"""

from dataclasses import dataclass

from schemas.condition import Condition
from schemas.reading import Reader
from schemas.template import Text

PATH_MAX = 512
_LATER = {"schedule": "trigger type schedule", "provider": "trigger type provider"}


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


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """Starts on an event of this CloudEvents type whose payload passes the filter."""

    event_type: str
    filter: Condition | None = None
    user: Text | None = None


Trigger = WebhookTrigger | EventTrigger


def normal_path(path: str) -> str:
    """Bring a webhook path into its one form: a slash in front, none at the end."""
    return "/" + path.strip().strip("/")


def read_trigger(root: Reader) -> Trigger | None:
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
    if kind in _LATER:
        reader.note(
            "type",
            f"the {_LATER[str(kind)]} is not available in this release",
            "Use a webhook or event trigger.",
            "not_supported",
        )
        return None
    if reader.choice("type", ("webhook", "event"), "") == "webhook":
        reader.known("type", "path", "verify", "user")
        path = reader.text("path", required=True, longest=PATH_MAX) or ""
        if "?" in path or "#" in path:
            reader.note("path", "holds a ? or #", "Leave query and fragment out.", "bad_path")
        verify = reader.choice("verify", ("optional", "required"), "optional") == "required"
        return WebhookTrigger(normal_path(path), verify, reader.template("user"))
    if kind != "event":
        return None
    reader.known("type", "event_type", "filter", "user")
    event_type = reader.text("event_type", required=True) or ""
    if event_type.startswith("nhood."):
        reader.note("event_type", "starts with nhood., which is ours", "Choose another name.")
    condition = reader.condition("filter", required=False)
    return EventTrigger(event_type, condition, reader.template("user"))
