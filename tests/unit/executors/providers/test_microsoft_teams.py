"""Direct messages at Microsoft Teams: who is in the chat, and what happens when it cannot open."""

from typing import Any

from executors.core.action import call
from executors.core.outcome import Rejected, Unavailable
from tests.contract.cases import CATALOGUE, EFFECT_KEY, VENDORS, response, run

TEAMS = CATALOGUE.get("microsoft_teams")
ACTION = TEAMS.action("send_direct_message")
CHAT = response(201, {"id": "19:c@thread.v2"})
SENT = response(201, {"id": "m1"})


def members(user: str) -> list[str]:
    sent, _ = run(TEAMS, ACTION, {"user": user, "text": "Hi"}, [CHAT, SENT])
    assert sent[1].url.endswith("/chats/19:c@thread.v2/messages")
    return [member["user@odata.bind"] for member in sent[0].json["members"]]


def test_chat_is_of_the_connected_person_and_the_other() -> None:
    own, other = members("ada@contoso.example")
    assert own.endswith(f"/users('{VENDORS['microsoft_teams'].variables['user_id']}')")
    assert other.endswith("/users('ada@contoso.example')")


def test_quote_in_a_name_stays_inside_it() -> None:
    assert members("o'brien@contoso.example")[1].endswith("/users('o''brien@contoso.example')")


def test_connection_without_its_user_is_told_to_reconnect() -> None:
    steps = call(TEAMS, ACTION, {"user": "ada@contoso.example", "text": "Hi"}, {}, EFFECT_KEY)
    outcome: Any = None
    try:
        next(steps)
    except StopIteration as end:
        outcome = end.value
    assert isinstance(outcome, Rejected)
    assert outcome.code == "bad_connection"


def test_chat_that_does_not_open_sends_nothing() -> None:
    params = {"user": "ada@contoso.example", "text": "Hi"}
    forbidden = response(403, {"error": {"code": "Forbidden", "message": "no"}})
    for answer, kind in ((forbidden, Rejected), (response(201, {}), Unavailable)):
        sent, outcome = run(TEAMS, ACTION, params, [answer])
        assert len(sent) == 1
        assert isinstance(outcome, kind)
