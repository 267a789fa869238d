"""Where we depart from a vendor's description, each with the reason; each must be needed."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


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


DEPARTURES = (
    Departure(
        "slack",
        "*",
        "*.token",
        "The description of 2021 lists the token as a parameter; it goes into Authorization.",
    ),
    Departure(
        "slack", "send_message", "body.metadata", "Message metadata is newer than the description."
    ),
    Departure(
        "slack",
        "update_message",
        "body.reply_broadcast",
        "chat.update documents it; the description of 2021 lacks it.",
    ),
    Departure(
        "slack",
        "list_messages",
        "answer",
        "The documented answer has response_metadata and no channel_actions_*, unlike 2021.",
    ),
    Departure(
        "zendesk",
        "list_*",
        "query.page[[]*",
        "Cursor pagination is documented for all lists, though not in the description.",
    ),
    Departure(
        "zendesk",
        "*_ticket",
        "body.ticket.requester",
        "Documented for both calls, though absent from the description.",
    ),
    Departure(
        "zendesk",
        "*_ticket",
        "body.ticket.custom_fields[[]*",
        "The description gives the field's definition where {id, value} is sent.",
    ),
    Departure(
        "gmail",
        "delete_*",
        "status",
        "The wire gives 204 without a body; the description knows 200 only.",
    ),
    Departure(
        "gmail",
        "modify_messages",
        "status",
        "The wire gives 204 without a body; the description knows 200 only.",
    ),
    Departure(
        "microsoft_teams",
        "*",
        "body.members[[]*",
        "A member's user@odata.bind is documented; the description lists what is read only.",
    ),
    Departure(
        "zoom",
        "*_recordings",
        "answer*.id",
        "A recording's id is its meeting's number, and a number on the wire.",
    ),
)
