"""The sandbox over real HTTP: it answers as vendors do, remembers, refuses, and fails on demand."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from executors.core.outcome import Rejected, Succeeded, Throttled, Unauthorised, Unavailable
from tests.integration.sandbox_parts import (
    CATALOGUE,
    REDIRECT,
    Playground,
    landed,
    running_sandbox,
)

VENDORS = [spec.slug for spec in CATALOGUE]
CONSENTED = [spec.slug for spec in CATALOGUE if spec.auth.ways_by_consent]


@pytest.fixture
async def sandbox() -> AsyncIterator[Playground]:
    async with running_sandbox() as playground:
        yield playground


@pytest.mark.parametrize("slug", VENDORS)
async def test_example_of_every_action_is_taken(sandbox: Playground, slug: str) -> None:
    outcomes = {
        name: await sandbox.act(slug, name, action.example.params)
        for name, action in CATALOGUE.get(slug).actions.items()
    }
    assert {n: o for n, o in outcomes.items() if not isinstance(o, Succeeded)} == {}


LEAD = {"last_name": "Doe", "email": "a@b.example"}
MESSAGE = {"channel": "#ops", "text": "hi"}
ISSUE = {"project": "OPS", "summary": "Down"}
THINGS: list[tuple[str, str, dict[str, Any], str, dict[str, Any], str]] = [
    ("slack", "channel", {"name": "launch"}, "channel", {}, "name"),
    ("salesforce", "lead", {"last_name": "Doe", "company": "Acme"}, "id", {}, "LastName"),
    ("jira", "issue", {"project": "OPS", "summary": "Down"}, "issue", {}, "summary"),
    ("zendesk", "ticket", {"subject": "Fire", "comment": "Help"}, "ticket_id", {}, "subject"),
    ("gmail", "label", {"name": "Launch"}, "label_id", {}, "name"),
    ("microsoft_teams", "meeting", {"subject": "Launch"}, "meeting_id", {}, "subject"),
    ("zoom", "meeting", {"topic": "Launch"}, "meeting_id", {}, "topic"),
    ("zoom", "webinar", {"topic": "Launch"}, "webinar_id", {}, "topic"),
]


@pytest.mark.parametrize(("slug", "thing", "params", "by", "more", "shown"), THINGS)
async def test_thing_that_was_made_can_be_got(
    sandbox: Playground,
    slug: str,
    thing: str,
    params: dict[str, Any],
    by: str,
    more: dict[str, Any],
    shown: str,
) -> None:
    made = await sandbox.act(slug, f"create_{thing}", params, key="k1")
    again = await sandbox.act(slug, f"create_{thing}", params | more, key="k2")
    assert isinstance(made, Succeeded)
    assert isinstance(again, Succeeded)
    assert made.vendor_id != again.vendor_id
    got = await sandbox.act(slug, f"get_{thing}", {by: str(made.vendor_id)})
    assert isinstance(got, Succeeded)
    assert str(got.vendor_id) == str(made.vendor_id)
    assert repr(next(iter(p for n, p in params.items() if n != "project"))) in repr(got.output)


REPO = {"owner": "octocat", "repo": "Hello-World"}


async def test_issues_are_kept_by_repository_and_listed_over_pages(sandbox: Playground) -> None:
    for number in range(5):
        params = REPO | {"title": f"no {number}"}
        made = await sandbox.act("github", "create_issue", params, key=f"k{number}")
        assert isinstance(made, Succeeded)
    await sandbox.act("github", "create_issue", REPO | {"repo": "Other", "title": "elsewhere"})
    which = REPO | {"issue_number": int(made.vendor_id or 0)}
    got = await sandbox.act("github", "get_issue", which)
    assert isinstance(got, Succeeded)
    assert got.output["title"] == "no 4"
    pages = REPO | {"per_page": 2, "max_items": 50}
    listed = await sandbox.act("github", "list_issues", pages)
    assert isinstance(listed, Succeeded)
    titles = [issue["title"] for issue in listed.output["items"]]
    assert titles == ["no 4", "no 3", "no 2", "no 1", "no 0", "Found a bug"]
    closed = await sandbox.act("github", "update_issue", which | {"state": "close"})
    assert isinstance(closed, Succeeded)
    assert closed.output["state"] == "closed"


async def test_file_that_was_written_can_be_read(sandbox: Playground) -> None:
    file = REPO | {"path": "docs/notes ü.md"}
    written = file | {"content": "Grüße", "message": "Add notes"}
    assert isinstance(await sandbox.act("github", "write_file", written), Succeeded)
    read = await sandbox.act("github", "get_file", file)
    assert isinstance(read, Succeeded)
    assert read.output["text"] == "Grüße"
    missing = await sandbox.act("github", "get_file", REPO | {"path": "nope.md"})
    assert (missing.kind, missing.code) == ("rejected", "not_found")


async def test_page_is_written_changed_and_put_into_the_trash(sandbox: Playground) -> None:
    parent = {"parent_page_id": "98ad959b-2b6a-4774-80ee-00246fb0ea9b"}
    page = {"title": "Plan", "content": "# Goals\n\n- ship it"}
    made = await sandbox.act("notion", "create_page", parent | page)
    assert isinstance(made, Succeeded)
    kinds = [block["type"] for block in (await sandbox.received("notion"))[-1]["body"]["children"]]
    assert kinds == ["heading_1", "bulleted_list_item"]
    which = {"page_id": made.vendor_id}
    blocks = {"block_id": made.vendor_id, "content": "One more line"}
    assert isinstance(await sandbox.act("notion", "append_blocks", blocks), Succeeded)
    assert isinstance(await sandbox.act("notion", "delete_page", which), Succeeded)
    got = await sandbox.act("notion", "get_page", which)
    assert isinstance(got, Succeeded)
    assert got.output["in_trash"] is True
    found = await sandbox.act("notion", "search", {"page_size": 1, "max_items": 10})
    assert isinstance(found, Succeeded)
    assert found.output["results"][0]["id"] == made.vendor_id


async def test_product_is_made_changed_listed_and_deleted_over_graphql(sandbox: Playground) -> None:
    ids = []
    for number in range(3):
        params = {"title": f"Socks {number}", "status": "draft", "tags": ["new"]}
        made = await sandbox.act("shopify", "create_product", params, key=f"k{number}")
        assert isinstance(made, Succeeded)
        ids.append(str(made.vendor_id))
    assert all(one.startswith("gid://shopify/Product/") for one in ids)
    number = ids[0].rpartition("/")[2]
    change = {"product_id": number, "title": "Warm socks", "tags": ["warm"]}
    assert isinstance(await sandbox.act("shopify", "update_product", change), Succeeded)
    got = await sandbox.act("shopify", "get_product", {"product_id": ids[0]})
    assert isinstance(got, Succeeded)
    assert (got.output["title"], got.output["tags"]) == ("Warm socks", ["warm"])
    listed = await sandbox.act("shopify", "list_products", {"page_size": 2, "max_items": 9})
    assert isinstance(listed, Succeeded)
    assert [item["id"] for item in listed.output["nodes"][:3]] == ids[::-1]
    gone = {"product_id": int(number)}
    assert isinstance(await sandbox.act("shopify", "delete_product", gone), Succeeded)
    for action in ("get_product", "delete_product"):
        missing = await sandbox.act("shopify", action, gone)
        assert (missing.kind, missing.code) == ("rejected", "not_found")


async def test_deal_hangs_on_its_contact_and_is_found_by_pages(sandbox: Playground) -> None:
    person = {"email": "ada@acme.example", "properties": {"favourite_colour": "red"}}
    contact = await sandbox.act("hubspot", "create_contact", person)
    assert isinstance(contact, Succeeded)
    for number in range(3):
        deal = {"name": f"Deal {number}", "amount": 1500, "contact_id": contact.vendor_id}
        made = await sandbox.act("hubspot", "create_deal", deal, key=f"k{number}")
        assert isinstance(made, Succeeded)
    sent = (await sandbox.received("hubspot"))[-1]["body"]
    assert sent["properties"] == {"dealname": "Deal 2", "amount": "1500"}
    assert sent["associations"][0]["to"] == {"id": contact.vendor_id}
    assert len(sent["associations"]) == 1
    change = {"deal_id": made.vendor_id, "stage": "closedwon"}
    changed = await sandbox.act("hubspot", "update_deal", change)
    assert isinstance(changed, Succeeded)
    assert changed.output["properties"]["dealstage"] == "closedwon"
    listed = await sandbox.act("hubspot", "list_deals", {"limit": 2, "max_items": 9})
    assert isinstance(listed, Succeeded)
    names = [deal["properties"]["dealname"] for deal in listed.output["results"]]
    assert names[:3] == ["Deal 2", "Deal 1", "Deal 0"]


async def test_payment_is_made_once_confirmed_and_found(sandbox: Playground) -> None:
    order = {"amount": 2000, "currency": "eur", "metadata": {"order_id": "6735"}}
    made = await sandbox.act("stripe", "create_payment_intent", order, key="same")
    again = await sandbox.act("stripe", "create_payment_intent", order, key="same")
    other = await sandbox.act("stripe", "create_payment_intent", order | {"amount": 1}, key="same")
    assert isinstance(made, Succeeded)
    assert (made.vendor_id, other.code) == (again.vendor_id, "idempotency_error")
    which = {"payment_intent": made.vendor_id}
    paid = await sandbox.act("stripe", "confirm_payment_intent", which, key="pay")
    got = await sandbox.act("stripe", "get_payment_intent", which)
    assert isinstance(paid, Succeeded)
    assert isinstance(got, Succeeded)
    assert paid.output["status"] == "succeeded"
    assert (got.output["amount"], got.output["currency"]) == (2000, "eur")
    assert got.output["metadata"] == {"order_id": "6735"}
    body = (await sandbox.received("stripe"))[0]["body"]
    assert body["metadata"] == {"order_id": "6735"}


async def test_customers_are_listed_behind_the_last_one(sandbox: Playground) -> None:
    for number in range(5):
        params = {"email": f"no{number}@acme.example"}
        made = await sandbox.act("stripe", "create_customer", params, key=f"k{number}")
        assert isinstance(made, Succeeded)
    listed = await sandbox.act("stripe", "list_customers", {"limit": 2, "max_items": 50})
    assert isinstance(listed, Succeeded)
    emails = [customer["email"].partition("@")[0] for customer in listed.output["data"]]
    assert emails == ["no4", "no3", "no2", "no1", "no0", "jennyrosen"]
    gone = {"customer": made.vendor_id}
    assert isinstance(await sandbox.act("stripe", "delete_customer", gone, key="d"), Succeeded)
    missing = await sandbox.act("stripe", "get_customer", gone)
    assert (missing.kind, missing.code) == ("rejected", "resource_missing")
    order = {"amount": 1, "currency": "eur", **gone}
    refused = await sandbox.act("stripe", "create_payment_intent", order, key="p")
    assert (refused.kind, refused.code) == ("rejected", "resource_missing")


@pytest.mark.parametrize(
    ("slug", "create", "params", "listing", "asked", "path"),
    [
        ("slack", "send_message", MESSAGE, "list_messages", "channel", "messages"),
        ("zendesk", "create_ticket", {"comment": "x"}, "list_tickets", None, "tickets"),
        ("jira", "create_issue", ISSUE, "search_issues", "jql", "issues"),
    ],
)
async def test_thing_that_was_made_is_listed(
    sandbox: Playground,
    slug: str,
    create: str,
    params: dict[str, Any],
    listing: str,
    asked: str | None,
    path: str,
) -> None:
    made = await sandbox.act(slug, create, params)
    assert isinstance(made, Succeeded)
    value = {"channel": made.output.get("channel"), "jql": "project = OPS"}.get(asked or "")
    listed = await sandbox.act(slug, listing, {asked: value} if asked else {})
    assert isinstance(listed, Succeeded)
    assert str(made.vendor_id) in repr(listed.output[path][0])


async def test_deleted_thing_is_gone(sandbox: Playground) -> None:
    made = await sandbox.act("salesforce", "create_lead", {"last_name": "Doe"})
    assert isinstance(made, Succeeded)
    which = {"id": made.vendor_id}
    assert isinstance(await sandbox.act("salesforce", "delete_lead", which), Succeeded)
    gone = await sandbox.act("salesforce", "get_lead", which)
    assert isinstance(gone, Rejected)
    assert gone.code == "NOT_FOUND"


async def test_change_is_seen_and_queried(sandbox: Playground) -> None:
    made = await sandbox.act(
        "salesforce", "create_lead", {"last_name": "Doe", "email": "a@b.example"}
    )
    assert isinstance(made, Succeeded)
    await sandbox.act("salesforce", "update_lead", {"id": made.vendor_id, "status": "Warm"})
    got = await sandbox.act("salesforce", "get_lead", {"id": made.vendor_id})
    assert isinstance(got, Succeeded)
    assert (got.output["Status"], got.output["LastName"]) == ("Warm", "Doe")
    query = "SELECT Id, Status FROM Lead WHERE Email = 'a@b.example'"
    found = await sandbox.act("salesforce", "query", {"q": query})
    assert isinstance(found, Succeeded)
    assert [(r["Id"], r["Status"]) for r in found.output["records"]] == [(made.vendor_id, "Warm")]


async def test_upsert_makes_once_and_changes_after(sandbox: Playground) -> None:
    params = {"external_id_field": "Ref__c", "external_id": "7", "last_name": "Doe"}
    first = await sandbox.act("salesforce", "upsert_contact", params)
    second = await sandbox.act("salesforce", "upsert_contact", params | {"last_name": "Roe"})
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert (first.output["created"], second.output["created"]) == (True, False)
    assert first.vendor_id == second.vendor_id


async def test_sent_mail_can_be_read_and_answered(sandbox: Playground) -> None:
    mail = {"to": "Ada <ada@acme.example>", "subject": "Grüße", "text": "Hallo", "html": "<b>!</b>"}
    sent = await sandbox.act("gmail", "send_message", mail)
    assert isinstance(sent, Succeeded)
    read = await sandbox.act("gmail", "read_message", {"message_id": sent.vendor_id})
    assert isinstance(read, Succeeded)
    assert (read.output["to"], read.output["subject"]) == ("Ada <ada@acme.example>", "Grüße")
    assert read.output["text"].strip() == "Hallo"
    assert read.output["html"].strip() == "<b>!</b>"
    # it came from nobody's address, so there is nobody to answer
    answer = {"message_id": sent.vendor_id, "text": "Danke"}
    assert (await sandbox.act("gmail", "reply_to_message", answer)).code == "no_sender"


async def test_channel_with_an_odd_id_keeps_its_own_messages(sandbox: Playground) -> None:
    team, made = {"team_id": "t1"}, []
    for name in ("Launch", "Support"):
        channel = await sandbox.act("microsoft_teams", "create_channel", team | {"name": name})
        assert isinstance(channel, Succeeded)
        made.append(team | {"channel_id": channel.vendor_id})  # 19:…@thread.tacv2
    for number in range(5):
        text = {"text": f"no {number}"}
        await sandbox.act("microsoft_teams", "send_channel_message", made[0] | text)
    await sandbox.act("microsoft_teams", "send_channel_message", made[1] | {"text": "other"})
    found = await sandbox.act("microsoft_teams", "get_channel", made[0])
    assert isinstance(found, Succeeded)
    assert found.output["displayName"] == "Launch"
    pages = made[0] | {"page_size": 2, "max_items": 50}
    listed = await sandbox.act("microsoft_teams", "list_channel_messages", pages)
    assert isinstance(listed, Succeeded)
    texts = [message["body"]["content"] for message in listed.output["value"]]
    assert texts == [f"no {number}" for number in (4, 3, 2, 1, 0)]


async def test_direct_message_opens_a_chat_and_is_listed_there(sandbox: Playground) -> None:
    params = {"user": "ada@contoso.example", "text": "Hello Ada"}
    sent = await sandbox.act("microsoft_teams", "send_direct_message", params)
    assert isinstance(sent, Succeeded)
    opened = (await sandbox.received("microsoft_teams"))[-2]["body"]
    assert opened["chatType"] == "oneOnOne"
    assert "ada@contoso.example" in opened["members"][1]["user@odata.bind"]


async def test_registrants_are_kept_by_meeting(sandbox: Playground) -> None:
    made = [await sandbox.act("zoom", "create_meeting", {"topic": name}) for name in ("A", "B")]
    for number, (meeting, name) in enumerate(zip((0, 0, 1), ("Ann", "Bo", "Cy"), strict=True)):
        params = {"meeting_id": int(made[meeting].vendor_id or 0), "email": f"{name}@acme.example"}
        key = f"k{number}"
        added = await sandbox.act(
            "zoom", "add_meeting_registrant", params | {"first_name": name}, key=key
        )
        assert isinstance(added, Succeeded)
    asked = {"meeting_id": made[0].vendor_id}
    listed = await sandbox.act("zoom", "list_meeting_registrants", asked)
    assert isinstance(listed, Succeeded)
    assert [r["first_name"] for r in listed.output["registrants"]] == ["Bo", "Ann"]


async def test_issue_carries_its_projects_key(sandbox: Playground) -> None:
    made = await sandbox.act("jira", "create_issue", {"project": "OPS", "summary": "Down"})
    assert isinstance(made, Succeeded)
    assert made.output["key"].startswith("OPS-")
    got = await sandbox.act("jira", "get_issue", {"issue": made.output["key"]})
    assert isinstance(got, Succeeded)
    assert got.vendor_id == made.vendor_id


async def test_list_is_cut_into_pages(sandbox: Playground) -> None:
    for number in range(5):
        await sandbox.act("zendesk", "create_ticket", {"comment": f"no {number}"}, key=f"k{number}")
    page = await sandbox.act("zendesk", "list_tickets", {"page_size": 2})
    assert isinstance(page, Succeeded)
    assert len(page.output["tickets"]) == 2
    assert page.output["meta"]["has_more"] is True
    everything = await sandbox.act("zendesk", "list_tickets", {"page_size": 2, "max_items": 50})
    assert isinstance(everything, Succeeded)
    ids = {ticket["id"] for ticket in everything.output["tickets"]}
    assert len(ids) == 6  # the five, and the example's own


@pytest.mark.parametrize(
    ("slug", "action", "params", "code"),
    [
        ("slack", "send_message", {"channel": "C0UNKNOWN0", "text": "x"}, "channel_not_found"),
        ("slack", "update_message", MESSAGE | {"ts": "1.2"}, "message_not_found"),
        ("slack", "get_user", {"user": "U0NOBODY00"}, "users_not_found"),
        ("slack", "find_user_by_email", {"email": "nobody@acme.example"}, "users_not_found"),
        ("salesforce", "get_lead", {"id": "00Q5e00000ZZZZZZZZ"}, "NOT_FOUND"),
        ("salesforce", "query", {"q": "SELEC Id FROM Lead"}, "REQUIRED_FIELD_MISSING"),
        ("jira", "get_issue", {"issue": "NO-1"}, "not_found"),
        ("jira", "add_comment", {"issue": "NO-1", "body": "x"}, "not_found"),
        ("zendesk", "get_ticket", {"ticket_id": 1}, "RecordNotFound"),
        ("zendesk", "delete_ticket", {"ticket_id": 1}, "RecordNotFound"),
        ("gmail", "get_message", {"message_id": "0000000000000000"}, "notFound"),
        ("microsoft_teams", "get_meeting", {"meeting_id": "nope"}, "NotFound"),
        ("zoom", "get_meeting", {"meeting_id": 1}, "3001"),
        (
            "zoom",
            "add_meeting_registrant",
            {"meeting_id": 1, "email": "a@b.example", "first_name": "A"},
            "3001",
        ),
        ("zoom", "get_recordings", {"meeting": "nope"}, "3301"),
        (
            "notion",
            "get_page",
            {"page_id": "00000000-0000-4000-8000-000000000000"},
            "object_not_found",
        ),
        ("github", "get_issue", REPO | {"issue_number": 9}, "not_found"),
        ("github", "create_comment", REPO | {"issue_number": 9, "body": "x"}, "not_found"),
    ],
)
async def test_what_is_not_there_is_refused_as_the_vendor_does(
    sandbox: Playground, slug: str, action: str, params: dict[str, Any], code: str
) -> None:
    outcome = await sandbox.act(slug, action, params)
    assert isinstance(outcome, Rejected)
    assert outcome.code == code


@pytest.mark.parametrize(
    ("slug", "path", "body"),
    [
        ("slack", "/api/chat.postMessage", {"text": "no channel"}),
        ("slack", "/api/chat.postMessage", {"channel": "#general"}),
        ("salesforce", "/services/data/v62.0/sobjects/Lead", {"FirstName": "Jane"}),
        ("jira", "/ex/jira/c1/rest/api/3/issue", {"fields": {"project": {"key": "OPS"}}}),
        ("zendesk", "/api/v2/tickets", {"ticket": {"subject": "no comment"}}),
    ],
)
async def test_request_that_the_vendor_would_refuse_is_refused(
    sandbox: Playground, slug: str, path: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": "Bearer sandbox_token"}
    answer = await sandbox.client.post(f"{sandbox.url}/{slug}{path}", json=body, headers=headers)
    refused = answer.status_code >= 400 or answer.json().get("ok") is False
    assert refused, answer.text


@pytest.mark.parametrize("slug", VENDORS)
async def test_unknown_token_is_unauthorised(sandbox: Playground, slug: str) -> None:
    name = next(iter(CATALOGUE.get(slug).actions))
    params = CATALOGUE.action(slug, name).example.params
    assert isinstance(await sandbox.act(slug, name, params, token="wrong"), Unauthorised)


async def test_same_idempotency_key_gives_the_first_answer(sandbox: Playground) -> None:
    first = await sandbox.act("zendesk", "create_ticket", {"comment": "once"}, key="same")
    second = await sandbox.act("zendesk", "create_ticket", {"comment": "once"}, key="same")
    other = await sandbox.act("zendesk", "create_ticket", {"comment": "twice"}, key="same")
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert first.vendor_id == second.vendor_id
    assert isinstance(other, Rejected)
    assert other.code == "IdempotentRequestError"
    assert (await sandbox.counts("zendesk"))["repeated"] == {"same": 2}


# ---- faults


async def test_throttling_tells_when_to_come_back(sandbox: Playground) -> None:
    fault = {"status": 429, "headers": {"Retry-After": "7"}, "body": {"ok": False}}
    await sandbox.fault("slack", "send_message", fault)
    outcome = await sandbox.act("slack", "send_message", MESSAGE)
    assert isinstance(outcome, Throttled)
    assert outcome.retry_after_s == 7
    assert isinstance(await sandbox.act("slack", "send_message", MESSAGE), Succeeded)


async def test_server_error_and_expired_token_are_played(sandbox: Playground) -> None:
    lead = {"last_name": "Doe"}
    await sandbox.fault("salesforce", "create_*", {"status": 503, "body": "<html>busy</html>"})
    assert isinstance(await sandbox.act("salesforce", "create_lead", lead), Unavailable)
    await sandbox.fault("salesforce", "create_*", {"unauthorised": True}, times=2)
    assert isinstance(await sandbox.act("salesforce", "create_lead", lead), Unauthorised)
    assert isinstance(await sandbox.act("salesforce", "create_contact", lead), Unauthorised)
    assert isinstance(await sandbox.act("salesforce", "create_lead", lead), Succeeded)


@pytest.mark.parametrize(("reset", "made"), [("before", 0), ("after", 1)])
async def test_broken_connection_happens_before_or_after_the_effect(
    sandbox: Playground, reset: str, made: int
) -> None:
    await sandbox.fault("zendesk", "create_ticket", {"reset": reset})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await sandbox.act("zendesk", "create_ticket", {"comment": "lost"})
    listed = await sandbox.act("zendesk", "list_tickets", {})
    assert isinstance(listed, Succeeded)
    assert len(listed.output["tickets"]) == made + 1


async def test_answer_is_cut_off_after_the_effect(sandbox: Playground) -> None:
    await sandbox.fault("zendesk", "create_ticket", {"truncate": True})
    with pytest.raises(httpx.RemoteProtocolError):
        await sandbox.act("zendesk", "create_ticket", {"comment": "cut"})
    assert (await sandbox.received("zendesk"))[-1]["fault"] == "truncate"


async def test_slow_answer_runs_into_the_timeout(sandbox: Playground) -> None:
    await sandbox.fault("slack", "send_message", {"delay_ms": 500})
    headers = {"Authorization": "Bearer sandbox_token"}
    with pytest.raises(httpx.ReadTimeout):
        await sandbox.client.post(
            f"{sandbox.url}/slack/api/chat.postMessage",
            json={"channel": "#ops", "text": "x"},
            headers=headers,
            timeout=0.1,
        )


async def test_fault_waits_for_its_turn_and_can_be_taken_back(sandbox: Playground) -> None:
    await sandbox.fault("slack", "*", {"status": 500, "body": {}}, after=1)
    assert isinstance(await sandbox.act("slack", "send_message", MESSAGE), Succeeded)
    await sandbox.client.delete(f"{sandbox.url}/_sandbox/faults")
    assert isinstance(await sandbox.act("slack", "send_message", MESSAGE), Succeeded)


async def test_fault_for_an_unknown_vendor_is_refused(sandbox: Playground) -> None:
    script = {"provider": "slak", "fault": {"status": 500}}
    answer = await sandbox.client.post(f"{sandbox.url}/_sandbox/faults", json=script)
    assert answer.status_code == 404
    assert "slack" in answer.json()["detail"]


# ---- what came in


async def test_what_came_in_is_shown_without_secrets(sandbox: Playground) -> None:
    tokens = (await sandbox.exchange("jira", await sandbox.code("jira"))).json()
    await sandbox.act("jira", "list_projects", {}, token=tokens["access_token"])
    shown = (await sandbox.client.get(f"{sandbox.url}/_sandbox/received")).text
    page = (await sandbox.client.get(sandbox.url)).text
    for text in (shown, page):
        assert tokens["access_token"] not in text
        assert tokens["refresh_token"] not in text
        assert "sandbox_secret" not in text
    assert [e["action"] for e in await sandbox.received("jira")][-2:] == [
        "oauth.token",
        "list_projects",
    ]
    assert (await sandbox.counts("jira"))["by_action"]["jira.list_projects"] == 1


# ---- OAuth


async def test_consent_page_can_be_filled_in(sandbox: Playground) -> None:
    page = await sandbox.client.get(sandbox.authorize_url("slack"))
    assert page.status_code == 200
    assert 'name="decision" value="allow"' in page.text
    assert "chat:write" in page.text
    asked = dict(httpx.URL(sandbox.authorize_url("slack")).params)
    target = sandbox.authorize_url("slack").partition("?")[0]
    sent = await sandbox.client.post(target, data=asked | {"decision": "allow", "account": "Acme"})
    back = landed(sent)
    assert back["state"] == "s1"
    answer = (await sandbox.exchange("slack", back["code"])).json()
    assert answer["team"]["name"] == "Acme"


async def test_denied_consent_says_so(sandbox: Playground) -> None:
    url = sandbox.authorize_url("slack", sandbox_auto="deny")
    back = landed(await sandbox.client.get(url))
    assert (back["error"], back["state"]) == ("access_denied", "s1")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "made:up"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
    ],
)
async def test_wrong_authorize_request_is_sent_back(
    sandbox: Playground, changes: dict[str, str], error: str
) -> None:
    back = landed(await sandbox.client.get(sandbox.authorize_url("slack", **changes)))
    assert back["error"] == error


@pytest.mark.parametrize(
    "changes", [{"client_id": "somebody"}, {"redirect_uri": "nowhere"}, {"redirect_uri": None}]
)
async def test_wrong_client_or_redirect_is_not_sent_anywhere(
    sandbox: Playground, changes: dict[str, str | None]
) -> None:
    answer = await sandbox.client.get(sandbox.authorize_url("slack", **changes))
    assert answer.status_code == 400
    assert "location" not in answer.headers


@pytest.mark.parametrize("slug", CONSENTED)
async def test_code_works_once_and_its_second_use_revokes(sandbox: Playground, slug: str) -> None:
    code = await sandbox.code(slug)
    tokens = (await sandbox.exchange(slug, code)).json()
    name = next(iter(CATALOGUE.get(slug).actions))
    params = CATALOGUE.action(slug, name).example.params
    token = tokens["access_token"]
    assert isinstance(await sandbox.act(slug, name, params, token=token), Succeeded)
    again = await sandbox.exchange(slug, code)
    assert again.json()["error"] == "invalid_grant"
    assert isinstance(await sandbox.act(slug, name, params, token=token, key="2"), Unauthorised)


@pytest.mark.parametrize(
    "changes",
    [{"code_verifier": "w" * 43}, {"code_verifier": ""}, {"redirect_uri": REDIRECT + "/"}],
)
async def test_code_of_another_verifier_or_redirect_is_refused(
    sandbox: Playground, changes: dict[str, str]
) -> None:
    answer = await sandbox.exchange("zendesk", await sandbox.code("zendesk"), **changes)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_grant"


async def test_wrong_client_secret_is_refused(sandbox: Playground) -> None:
    code = await sandbox.code("zendesk")
    answer = await sandbox.exchange("zendesk", code, client_secret="guess")
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"


async def test_refresh_token_rotates_and_its_reuse_revokes(sandbox: Playground) -> None:
    first = (await sandbox.exchange("zendesk", await sandbox.code("zendesk"))).json()
    renew = {"grant_type": "refresh_token"}
    second = (await sandbox.token("zendesk", refresh_token=first["refresh_token"], **renew)).json()
    assert second["refresh_token"] != first["refresh_token"]
    old = await sandbox.act("zendesk", "list_tickets", {}, token=first["access_token"])
    new = await sandbox.act("zendesk", "list_tickets", {}, token=second["access_token"])
    assert isinstance(old, Unauthorised)
    assert isinstance(new, Succeeded)
    reused = await sandbox.token("zendesk", refresh_token=first["refresh_token"], **renew)
    assert reused.json()["error"] == "invalid_grant"
    dead = await sandbox.token("zendesk", refresh_token=second["refresh_token"], **renew)
    assert dead.json()["error"] == "invalid_grant"


async def test_reusable_refresh_token_stays(sandbox: Playground) -> None:
    first = (await sandbox.exchange("salesforce", await sandbox.code("salesforce"))).json()
    renew = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    for _ in range(2):
        answer = (await sandbox.token("salesforce", **renew)).json()
        assert "refresh_token" not in answer


async def test_grants_outlive_a_restart(tmp_path: Path) -> None:
    journal = tmp_path / "sandbox" / "grants.jsonl"
    async with running_sandbox(journal) as sandbox:
        tokens = (await sandbox.exchange("jira", await sandbox.code("jira"))).json()
        assert tokens["access_token"] not in journal.read_text()
    with journal.open("a") as file:
        file.write('{"id": "cut off by a ki')
    async with running_sandbox(journal) as sandbox:
        listed = await sandbox.act("jira", "list_projects", {}, token=tokens["access_token"])
        assert isinstance(listed, Succeeded)


async def test_accounts_are_kept_apart(sandbox: Playground) -> None:
    made = {}
    for account in ("Acme", "Bert"):
        code = await sandbox.code("zendesk", sandbox_account=account)
        made[account] = (await sandbox.exchange("zendesk", code)).json()["access_token"]
    ticket = await sandbox.act("zendesk", "create_ticket", {"comment": "x"}, token=made["Acme"])
    assert isinstance(ticket, Succeeded)
    asked = {"ticket_id": ticket.vendor_id}
    foreign = await sandbox.act("zendesk", "get_ticket", asked, token=made["Bert"])
    assert isinstance(foreign, Rejected)


async def test_lacking_scope_is_told(sandbox: Playground) -> None:
    code = await sandbox.code("slack", scope="users:read")
    token = (await sandbox.exchange("slack", code)).json()["access_token"]
    outcome = await sandbox.act("slack", "send_message", MESSAGE, token=token)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "missing_scope"
    assert "chat:write" in outcome.message
