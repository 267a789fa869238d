"""What takes more than one request at Microsoft Teams."""

from typing import Any

from executors.core.action import Call, Steps
from executors.core.outcome import Rejected, Succeeded, Unavailable


def call_send_direct_message(call: Call) -> Steps:
    """Open the chat with a person and write into it.

    Graph answers a chat of two that is there already, so that opening it again does no harm.
    https://learn.microsoft.com/graph/api/chat-post
    """
    params = call.params
    own = call.connection.get("user_id")
    if not own:
        return Rejected(
            code="bad_connection",
            message="The connection does not know its user; please reconnect the account.",
        )
    people = [str(own), str(params["user"])]
    opened = call.other(
        "create_chat", {"chat_type": "oneOnOne", "members": [_member(who) for who in people]}
    )
    outcome = opened.outcome((yield opened.request()))
    if not isinstance(outcome, Succeeded):
        return outcome
    chat = outcome.output.get("id")
    if not isinstance(chat, str) or not chat:
        return Unavailable(
            status=outcome.status, code="unreadable_answer", message="Microsoft gave no chat."
        )
    given = {name: params[name] for name in ("text", "format", "importance") if name in params}
    last = call.other("send_chat_message", {**given, "chat_id": chat})
    return last.outcome((yield last.request()))


def _member(who: str) -> dict[str, Any]:
    quoted = who.replace("'", "''")  # as OData writes a quote inside a text
    return {
        "@odata.type": "#microsoft.graph.aadUserConversationMember",
        "roles": ["owner"],
        "user@odata.bind": f"https://graph.microsoft.com/v1.0/users('{quoted}')",
    }
